"""Pictures of results, as the report shows them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PillowImage

from pipelines.restoration.pictures import draw_colour_pictures, draw_pictures
from pipelines.restoration.restorer import Result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("draw", "scale"), [(draw_pictures, 1), (draw_pictures, 2), (draw_colour_pictures, 1)])
def test_full_transparency_is_a_light_checker_before_and_after(draw, scale: int, channels: int) -> None:
    before = np.zeros((64, 64, channels), np.uint8)
    before[:, ::2] = 90  # stripes, as what fills hidden pixels makes them
    alpha = np.full((64 * scale, 64 * scale, 1), 255, np.uint8)
    alpha[:, : 32 * scale] = 0
    after = np.zeros((64 * scale, 64 * scale, channels), np.uint8)
    blocks = np.zeros((8 * scale, 8 * scale), np.float32)
    pictures = draw(before, Result(after, alpha, 0.0, blocks, ()))
    shown = [np.asarray(PillowImage.open(io.BytesIO(pictures[name]))) for name in ("thumbnail", "restored")]
    inside = [each[:, : 32 * scale - 16].astype(int) for each in shown]
    assert min(each.min() for each in inside) > 200
    assert np.abs(inside[0] - inside[1]).max() <= 8
    assert max(each[:, 32 * scale + 16 :].max() for each in shown) < 150
