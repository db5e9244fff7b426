"""The code that knows no images: a proper one, causal, and as short as JPEG-LS on real pictures."""

from __future__ import annotations

import math

import imagecodecs
import numpy as np
import pytest
import skimage.data
import torch

from vaecore.representations.complexity import LEVELS, code_length


def as_y(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32))[None, None] / 255


def test_probabilities_of_all_levels_sum_to_one() -> None:
    """At every pixel of a real picture, given what came before."""
    image = skimage.data.camera()[100:108, 200:212]
    for row, column in ((0, 0), (0, 5), (3, 0), (7, 11), (4, 6)):
        every = np.repeat(image[None], LEVELS, axis=0)
        every[:, row, column] = np.arange(LEVELS)
        lengths = code_length(torch.from_numpy(every.astype(np.float32))[:, None] / 255)[:, 0, row, column]
        assert float(torch.exp(-lengths).sum()) == pytest.approx(1, abs=1e-4)


def test_a_pixel_depends_on_what_came_before_alone() -> None:
    y = torch.rand(1, 1, 9, 9)
    later = y.clone()
    later[0, 0, 4, 5:] = 0.3
    later[0, 0, 5:] = 0.9
    before, after = code_length(y)[0, 0], code_length(later)[0, 0]
    assert torch.equal(before[:4], after[:4])
    assert torch.equal(before[4, :5], after[4, :5])


@pytest.mark.parametrize("name", ["camera", "brick", "grass", "coins", "page", "text"])
def test_as_long_as_jpeg_ls(name: str) -> None:
    image = getattr(skimage.data, name)()[:192, :192]
    bits = float(code_length(as_y(image)).sum()) / math.log(2)
    assert bits == pytest.approx(8 * len(imagecodecs.jpegls_encode(np.ascontiguousarray(image))), rel=0.08)


def test_a_flat_image_costs_next_to_nothing_and_noise_what_it_must() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert float(code_length(as_y(flat)).mean()) < 0.1
    assert math.log(256) < float(code_length(as_y(noise)).mean()) < 1.1 * math.log(256)
