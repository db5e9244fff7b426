"""Written files, read again by our reader and by Pillow: samples, depth, alpha, profile and resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from pipelines.images import read_image
from pipelines.images.write import SUFFIXES, encode_image

GREY_PROFILE = bytes(  # a made-up profile: only its header is looked at
    bytearray(16) + b"GRAY" + bytearray(16) + b"acsp" + bytearray(160)
)


def samples(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("png", np.uint8), ("png", np.uint16), ("tiff", np.uint8), ("tiff", np.uint16), ("webp", np.uint8)],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_what_was_written_is_read(kind: str, dtype: type, channels: int, alpha: bool, tmp_path: Path) -> None:
    pixels, opacity = samples(13, 7, channels, dtype), samples(13, 7, 1, dtype) if alpha else None
    icc = GREY_PROFILE if channels == 1 else ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data, notes = encode_image(kind, pixels, opacity, icc=icc, dpi=(300.0, 150.0))
    path = tmp_path / f"x{SUFFIXES[kind]}"
    path.write_bytes(data)
    found = read_image(path, max_pixels=1000)
    as_rgb = kind == "webp" and channels == 1  # WebP stores grey as RGB
    assert notes == ()
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, np.repeat(pixels, 3, axis=2) if as_rgb else pixels)
    assert (found.alpha is None) == (opacity is None)
    assert opacity is None or np.array_equal(found.alpha, opacity)
    assert found.icc == (None if as_rgb else icc)
    assert found.bit_depth == (8 if dtype == np.uint8 else 16)
    if kind != "webp":
        assert found.dpi == pytest.approx((300, 150), rel=1e-3)
    if kind == "png":
        with PillowImage.open(path) as other:
            assert other.info["dpi"] == pytest.approx((300, 150), rel=1e-3)


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    pixels, opacity = samples(20, 30, 3, np.uint16), samples(20, 30, 1, np.uint16)
    _, notes = encode_image("webp", pixels, opacity)
    assert notes == ("16 bits reduced to the 8 of WEBP",)
    data, notes = encode_image("jpeg", pixels, opacity, dpi=(72.0, 72.0))
    assert notes == ("16 bits reduced to the 8 of JPEG", "transparency left out, which JPEG has not")
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert read_image(path, max_pixels=1000).dpi == (72, 72)


def test_a_jpeg_is_close_and_keeps_its_profile(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[:, None]), axis=2)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "x.jpg"
    path.write_bytes(encode_image("jpeg", np.ascontiguousarray(pixels), icc=icc)[0])
    found = read_image(path, max_pixels=5000)
    assert np.abs(found.pixels.astype(int) - pixels).max() <= 4
    assert found.icc == icc


@pytest.mark.parametrize(("kind", "limit"), [("webp", "16,383"), ("jpeg", "65,500")])
def test_too_long_a_side_names_what_would_work(kind: str, limit: str) -> None:
    with pytest.raises(ValueError, match=rf"70,000 pixels are more along a side than the {limit} .* png or tiff"):
        encode_image(kind, np.zeros((1, 70_000, 1), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 3), (4097, 1, 3)])
def test_odd_sizes(shape: tuple[int, int, int], tmp_path: Path) -> None:
    for kind in ("png", "tiff", "webp", "jpeg"):
        path = tmp_path / f"x{SUFFIXES[kind]}"
        path.write_bytes(encode_image(kind, samples(*shape, np.uint8))[0])
        assert read_image(path, max_pixels=10_000).pixels.shape[:2] == shape[:2]
