"""Good images beside damaged copies of them: what choices before and after training are made on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipelines.data.synthetic_defects import synthesize
from pipelines.images import Decoded, Failed, ImageFile
from pipelines.models.inputs import decode_for
from pipelines.models.session import keyed_generator

if TYPE_CHECKING:
    from pipelines.models.model_file import Metadata
    from vaecore.representations.image_format import ImageFormat


def with_damage(
    files: Sequence[ImageFile], form: ImageFormat | Metadata, copies: int
) -> Iterator[tuple[Decoded, list[NDArray[Any]]]]:
    """Each readable image, and copies of it with synthetic defects; equal contents get equal defects."""
    for image in decode_for(files, form):
        if not isinstance(image, Failed):
            generator = keyed_generator(image.sha256)
            yield image, [synthesize(image.pixels, generator).image for _ in range(copies)]
