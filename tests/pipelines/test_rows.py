"""Rows of the output: what a note tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.images import Decoded, ImageFile
from pipelines.rows import note_of


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
    file = ImageFile(Path("a.png"), "a.png", 1, 1)
    pixels = np.zeros((height, width, 1), np.uint8)
    image = Decoded(file, pixels, width=width, height=height, bit_depth=8, sha256="", note=before)
    assert note_of(image, (256, 200)) == after
