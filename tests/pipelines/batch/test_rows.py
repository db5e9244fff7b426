"""Rows of the output: what a note tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.batch.rows import note_of
from pipelines.images import Decoded, ImageFile
from pipelines.models.model_file import Metadata


@pytest.mark.parametrize(
    ("width", "height", "before", "after"),
    [
        (64, 3, None, None),
        (3, 64, "transparency ignored", "transparency ignored"),
        (63, 3, None, "enlarged from 63 x 3 pixels to 200 x 256: its score says little"),
        (
            1,
            1,
            "transparency ignored",
            "transparency ignored; enlarged from 1 x 1 pixels to 200 x 256: its score says little",
        ),
    ],
)
def test_an_image_below_a_quarter_of_the_working_size_is_noted(
    width: int, height: int, before: str | None, after: str | None
) -> None:
    assert note_of(image_of(width, height, before), Metadata.model_construct(size=(256, 200))) == after


@pytest.mark.parametrize(("side", "noted"), [(28, False), (7, False), (6, True)])
def test_a_model_of_small_images_is_told_of_smaller_ones_alone(side: int, noted: bool) -> None:
    of_digits = Metadata.model_construct(size=(224, 224), median_size=(28, 28))
    assert (note_of(image_of(side, side), of_digits) is not None) == noted
    of_photographs = Metadata.model_construct(size=(224, 224), median_size=(3000, 4000))
    assert note_of(image_of(side, side), of_photographs) is not None


def image_of(width: int, height: int, note: str | None = None) -> Decoded:
    file = ImageFile(Path("a.png"), "a.png", 1, 1)
    pixels = np.zeros((height, width, 1), np.uint8)
    return Decoded(file, pixels, width=width, height=height, bit_depth=8, sha256="", note=note)
