from __future__ import annotations

import pytest
from torch import nn

from pipelines.image_to_image.cost import count_multiplications


def test_multiplications_are_those_of_each_convolution_at_its_resolution() -> None:
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 2, stride=2), nn.Conv2d(16, 16, 1, groups=4)
    assert count_multiplications(nn.Sequential(*layers), 3, 2) == pytest.approx(3 * 8 * 9 + 8 * 16 * 4 / 4 + 16 * 4 / 4)
