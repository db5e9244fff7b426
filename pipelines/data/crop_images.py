"""Clean images of any size in one flat file on disk: what an image-to-image network is trained on, crop by crop."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base.files import write_json
from pipelines.base.progress import progress
from pipelines.data.cache import cache_folder
from pipelines.errors import DataError, ImageError
from pipelines.images import Decoded, Failed, ImageFile
from pipelines.images.bits import ALL
from pipelines.images.camera_bits import survey_bits
from pipelines.images.convert import pixel_digest
from pipelines.images.label_images import LabelFolder
from pipelines.images.tiles import padded
from pipelines.models.inputs import decode_for, pixel_type, some_readable, warn_left_out
from vaecore.representations.image_format import ImageFormat, resize

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class CropImages:
    """Distinct readable images of a folder, in the order of their names.

    Attributes:
        files: Where they come from.
        sha256: Of the files.
        pixel_sha256: Of the decoded pixels: a copy in another format has the same.
        sizes: Height and width of each.
        starts: Where each begins in `flat`.
        flat: All samples, one image after the other, rows first; a memory map.
        image_format: Channels and depth.
        labelled: Whether each pixel has its label behind its channels.
    """

    files: tuple[ImageFile, ...]
    sha256: tuple[str, ...]
    pixel_sha256: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    flat: NDArray[Any]
    image_format: ImageFormat
    labelled: bool = False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def image(self, index: int) -> NDArray[Any]:
        """All of an image, (H, W, C), with its labels as a last channel if it has some, still on disk."""
        height, width = self.sizes[index]
        size = height * width * _depth(self.image_format, self.labelled)
        return self.flat[self.starts[index] : self.starts[index] + size].reshape(height, width, -1)

    def draw_crops(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        side: int,
        random: np.random.Generator,
        *,
        upright: bool = False,
    ) -> NDArray[Any]:
        """A random square of each of some images, mirrored at random, turned unless `upright`: (B, side, side, C).

        Where an image is smaller than that, it is mirrored beyond its border.
        """
        crops = []
        for index in indices:
            image = self.image(index)
            top, left = (int(random.integers(max(0, length - side) + 1)) for length in image.shape[:2])
            crop = padded(image[top : top + side, left : left + side], side)
            crop = crop if upright else np.rot90(crop, int(random.integers(4)))
            crops.append(crop[:, ::-1] if random.integers(2) else crop)
        return np.stack(crops)


def load_crop_images(
    files: Sequence[ImageFile],
    image_format: ImageFormat,
    labels: LabelFolder | None = None,
    *,
    short_side: int | None = None,
) -> CropImages:
    """Decode images into one file under KINTSUGI_HOME; later runs over the same files reuse it.

    Files that failed are tried again: where one can be read now, all are decoded anew.

    Args:
        files: The images.
        image_format: Channels and depth that all are brought to.
        labels: Where the label of each pixel is; images without are left out.
        short_side: Pixels that the shorter side of every image is brought to; `pixel_sha256` is of them as they were.

    Raises:
        DataError: None can be read.
        ValueError: Labels and a short side: there is nothing between two labels.
    """
    if labels is not None and short_side is not None:
        raise ValueError("images with labels keep their size: labels cannot be interpolated")
    stamp = {
        "files": [(str(file.path), file.size, file.mtime_ns) for file in files],
        "format": [image_format.channels, image_format.bit_depth],
        "hidden": "filled",
        "bits": "all",
        **({} if labels is None else {"labels": labels.stamp(files)}),
        **({} if short_side is None else {"short_side": short_side}),
    }
    with cache_folder(stamp) as folder:
        if not (folder / "photos.json").is_file() or _may_read_more(folder, files, image_format, labels):
            _decode_into(folder, files, image_format, labels, short_side)
        index = json.loads((folder / "photos.json").read_text(encoding="utf-8"))
        if not index["keep"]:
            reason = index["failed"][0][1] if index["failed"] else "there are none"
            msg = f"none of {len(files)} images can be read; the first: {reason}"
            raise DataError(msg)
        flat = np.memmap(folder / "photos.raw", dtype=pixel_type(image_format), mode="r")
    if index["bits"] < ALL:
        log.info("16-bit images fill %d bits: they are brought to all 16, here and in use", index["bits"])
    warn_left_out(log, ((files[position].relative, reason) for position, reason in index["failed"]))
    sizes = tuple((int(height), int(width)) for height, width in index["sizes"])
    lengths = [height * width * _depth(image_format, labels is not None) for height, width in sizes]
    return CropImages(
        files=tuple(files[position] for position in index["keep"]),
        sha256=tuple(index["sha256"]),
        pixel_sha256=tuple(index["pixel_sha256"]),
        sizes=sizes,
        starts=tuple(int(start) for start in np.cumsum([0, *lengths[:-1]])),
        flat=flat,
        image_format=image_format,
        labelled=labels is not None,
    )


def _depth(image_format: ImageFormat, labelled: bool) -> int:
    return image_format.channels + labelled


def _may_read_more(
    folder: Path, files: Sequence[ImageFile], image_format: ImageFormat, labels: LabelFolder | None
) -> bool:
    """Return whether a file that an earlier run could not read is of use now.

    An error of the disk or of a share is no fact of a file.
    """

    def has_labels(image: Decoded) -> bool:
        try:
            return labels is None or labels.of(image.file, image.pixels.shape[:2]) is not None
        except ImageError:
            return False

    index = json.loads((folder / "photos.json").read_text(encoding="utf-8"))
    return some_readable([files[position] for position, _ in index["failed"]], image_format, has_labels)


def _decode_into(
    folder: Path,
    files: Sequence[ImageFile],
    image_format: ImageFormat,
    labels: LabelFolder | None,
    short_side: int | None,
) -> None:
    temporary = folder / f"photos.{os.getpid()}.tmp"
    bits = survey_bits(files)
    index: dict[str, list[Any]] = {"keep": [], "sha256": [], "pixel_sha256": [], "sizes": [], "failed": []}
    known: set[str] = set()
    with temporary.open("wb") as flat, progress(log, "read", len(files), "images") as advance:
        for position, image in enumerate(decode_for(files, image_format, filled=True, bits=bits)):
            advance()
            if isinstance(image, Failed):
                index["failed"].append((position, image.reason))
                continue
            digest = pixel_digest(image.pixels)
            if digest in known:
                continue
            samples = image.pixels
            if labels is not None:
                try:
                    own = labels.of(image.file, samples.shape[:2])
                except ImageError as error:
                    index["failed"].append((position, str(error)))
                    continue
                samples = np.dstack([samples, own.astype(samples.dtype)])
            if short_side is not None:
                samples = _resized(samples, short_side, image_format)
            known.add(digest)
            flat.write(np.ascontiguousarray(samples).tobytes())
            for name, value in (
                ("keep", position), ("sha256", image.sha256), ("pixel_sha256", digest),
                ("sizes", samples.shape[:2]),
            ):  # fmt: skip
                index[name].append(value)
    (folder / "photos.json").unlink(missing_ok=True)  # of other pixels, should this process be killed in between
    temporary.replace(folder / "photos.raw")
    write_json(folder / "photos.json", index | {"bits": bits})


def _resized(samples: NDArray[Any], short_side: int, image_format: ImageFormat) -> NDArray[Any]:
    """An image with so many pixels along its shorter side."""
    scale = short_side / min(samples.shape[:2])
    height, width = (round(length * scale) for length in samples.shape[:2])
    y = image_format.to_unit(torch.from_numpy(np.ascontiguousarray(samples))[None])
    resized: NDArray[Any] = image_format.from_unit(resize(y, (height, width)))[0].numpy()
    return resized
