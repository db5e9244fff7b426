"""A result as a file: pixels or labels, with what the image's own file states and stays true of the result."""

from __future__ import annotations

from pipelines.errors import ImageError
from pipelines.images.colour_space import profile_for
from pipelines.images.image import Image
from pipelines.images.samples import Samples
from pipelines.images.tags import Tags
from pipelines.images.write import FileKind, encode_image
from pipelines.restoration.segmenter import encode_labels


def encode_result(
    image: Image,
    made: Samples,
    alpha: Samples | None,
    *,
    kind: FileKind,
    scale: int,
    classes: int,
    gps: bool,
    bits: int,
    software: str | None,
) -> tuple[bytes, tuple[str, ...]]:
    """Encode what was made of an image.

    Args:
        image: As it was read; its pixels do not matter any more.
        made: Pixels (H, W, C), or labels (H, W).
        alpha: (H, W, 1) in the dtype of the pixels.
        kind: Of the file.
        scale: How much larger the result is than the image.
        classes: Of labels.
        gps: Keep where a photograph was taken.
        bits: That the image was read with: its values are in the range of these again.
        software: What made the result, in words, for the file to state; None: nothing is stated.

    Returns:
        The bytes of the file, and notes on what it cannot hold.

    Raises:
        ImageError: The result is larger than its format allows.
    """
    dpi = image.dpi and (image.dpi[0] * scale, image.dpi[1] * scale)  # of the same size on paper
    tags = (image.tags or Tags()).of_result(scale, gps=gps, software=software)
    try:
        if made.ndim == 2:
            return encode_labels(kind, made, classes, dpi, tags)
        icc = profile_for(image.icc, made.shape[2])
        content, notes = encode_image(kind, made, alpha, icc=icc, dpi=dpi, cicp=image.cicp, tags=tags, bits=bits)
    except ValueError as error:
        raise ImageError(f"cannot be written: {error}") from None
    if image.icc_source is not None and icc is not None:
        notes = (f"colour space of the {image.icc_source} written as a colour profile", *notes)
    return content, notes
