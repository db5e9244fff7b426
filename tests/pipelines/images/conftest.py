"""Small pictures, and a way to have them read back from a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipelines.images import Image, read_image


@pytest.fixture
def picture() -> PIL.Image.Image:
    """A smooth RGB picture, 29 wide and 23 high, without any symmetry."""
    seeds = np.random.default_rng(5).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return PIL.Image.fromarray(seeds).resize((29, 23), PIL.Image.Resampling.BICUBIC)


@pytest.fixture
def noise16() -> np.ndarray:
    """An RGB array that uses all 16 bits."""
    return np.random.default_rng(6).integers(0, 65536, (23, 29, 3), dtype=np.uint16)


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """A Pillow image as the bytes of a file."""

    def save(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return save


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Image]:
    """Write bytes to a file and read it as an image."""

    def write_and_read(data: bytes, *, name: str = "file.png", max_pixels: int = 1_000_000) -> Image:
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path, max_pixels=max_pixels)

    return write_and_read
