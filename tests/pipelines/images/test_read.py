from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError
from pipelines.images import Image, read_image


def test_the_digest_is_that_of_the_bytes_decoded_and_the_file_is_read_once(tmp_path, encode, picture, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture, "PNG"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    reads = []
    read_bytes = Path.read_bytes

    def count(self: Path) -> bytes:
        reads.append(self)
        data = read_bytes(self)
        self.unlink()  # a second look would find nothing
        return data

    monkeypatch.setattr(Path, "read_bytes", count)
    image = read_image(path, max_pixels=1000)
    assert image.sha256 == digest
    assert reads == [path]


def test_the_bytes_decide_and_not_the_suffix(read, encode, picture):
    data = encode(picture, "JPEG")
    np.testing.assert_array_equal(read(data, name="really.png").pixels, read(data, name="a.jpg").pixels)


def test_a_text_file_is_not_an_image_whatever_its_name(read):
    with pytest.raises(ImageError, match=r'is a text file, not an image \(it begins "hello"'):
        read(b"hello\n", name="image.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp", "webp", "ppm", "jp2"])
def test_an_empty_file_is_called_empty(read, suffix):
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        read(b"", name=f"image.{suffix}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_one_pixel(read, encode, kind):
    image = read(encode(PIL.Image.new("RGB", (1, 1), (255, 255, 255)), kind))
    assert image.pixels.shape[:2] == (1, 1)
    assert image.pixels.min() >= 250


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_the_limit_counts_for_every_format(read, encode, picture, kind):
    data = encode(picture, kind)
    assert read(data, max_pixels=29 * 23).pixels.shape == (23, 29, 3)
    with pytest.raises(ImageError, match=r"is 29 x 23 = 667 pixels, above the limit of 666 \(KINTSUGI_MAX_PIXELS\)"):
        read(data, max_pixels=29 * 23 - 1)


def test_pillows_own_limit_plays_no_part(read, encode, picture, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 400)  # 667 pixels would warn, or fail above 800
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
            assert read(encode(picture, kind)).pixels.shape == (23, 29, 3)
    assert caught == []


def test_a_file_that_vanished(tmp_path):
    with pytest.raises(ImageError, match="is gone since it was listed"):
        read_image(tmp_path / "gone.png", max_pixels=1000)


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="is a link to a file that is gone"):
        read_image(tmp_path / "link.png", max_pixels=1000)


def test_a_link_to_itself(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "link.png")
    with pytest.raises(ImageError, match="cannot be read: Too many levels of symbolic links"):
        read_image(tmp_path / "link.png", max_pixels=1000)


def test_what_is_not_a_regular_file(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="is a folder, not a file"):
        read_image(tmp_path / "folder.png", max_pixels=1000)
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(tmp_path / "pipe.png", max_pixels=1000)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "may not be read: permission denied"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (MemoryError(), "does not fit into memory"),
    ],
)
def test_errors_of_the_file_system_are_reasons(tmp_path, monkeypatch, error, reason):
    # Raised in the place of the system: permissions do not bind root, who may run the tests.
    (tmp_path / "a.png").write_bytes(b"x")

    def fail(self: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / "a.png", max_pixels=1000)


def test_a_file_too_large_for_any_image_is_not_read(tmp_path):
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(ImageError, match="has 1,099,511,627,776 bytes, above the limit of 67,116,864"):
        read_image(path, max_pixels=1000)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "does not fit into memory: lower KINTSUGI_WORKERS or KINTSUGI_MAX_PIXELS"),
        (RuntimeError("two\nlines"), "cannot be decoded as PNG: two lines$"),
        (KeyError(), "cannot be decoded as PNG: KeyError$"),
        (Warning("odd"), "cannot be decoded as PNG: odd$"),
    ],
)
def test_whatever_a_decoder_raises_is_a_reason_of_one_line(read, encode, picture, monkeypatch, error, reason):
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(imagecodecs, "png_decode", fail)
    with pytest.raises(ImageError, match=reason):
        read(encode(picture, "PNG"))


def small_files(picture: PIL.Image.Image) -> list[bytes]:
    """One valid file of each format and kind of compression."""
    array, tiff, files = np.asarray(picture), io.BytesIO(), []
    wide = array.astype(np.uint16) * 257
    for kind, options in [
        ("PNG", {"exif": b"Exif\x00\x00II*\x00", "icc_profile": imagecodecs.cms_profile("srgb")}),
        ("JPEG", {"dpi": (72, 72), "icc_profile": imagecodecs.cms_profile("srgb")}),
        ("JPEG", {"progressive": True}),
        ("GIF", {"save_all": True, "append_images": [picture.rotate(90)]}),
        ("BMP", {}),
        ("WEBP", {"lossless": True, "exif": b"Exif\x00\x00II*\x00"}),
        ("PPM", {}),
        ("JPEG2000", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ]:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    tifffile.imwrite(tiff, wide, photometric="rgb", tile=(16, 16), compression="zlib")
    plain = b"P2 4 3 15\n" + b" ".join(b"%d" % value for value in range(12))
    return [*files, tiff.getvalue(), imagecodecs.png_encode(wide), plain]


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Flip a bit, overwrite, cut out or cut off, once to three times, in the header as often as anywhere."""
    damaged = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        end = len(damaged) if generator.random() < 0.5 else min(len(damaged), 100)
        place = int(generator.integers(0, max(end, 1)))
        match generator.integers(0, 4):
            case 0:
                damaged[place : place + 1] = bytes(byte ^ 1 << place % 8 for byte in damaged[place : place + 1])
            case 1:
                damaged[place : place + 2] = generator.bytes(2)
            case 2:
                del damaged[place : place + 5]
            case _:
                del damaged[place:]
    return bytes(damaged)


def test_damaged_files_give_an_image_or_a_reason_and_nothing_else(read, picture, capfd):
    generator = np.random.default_rng(2026)
    images: list[Image] = []
    reasons: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in small_files(picture):
            assert isinstance(read(data), Image)
            for _ in range(30):
                try:
                    images.append(read(damage(data, generator)))
                except ImageError as error:
                    reasons.append(str(error))
    assert len(images) > 30
    for image in images:
        assert image.pixels.ndim == 3
        assert image.pixels.shape[2] in {1, 3}
        assert image.pixels.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}
        assert image.alpha is None or image.alpha.shape == (*image.pixels.shape[:2], 1)
    assert len(reasons) > 100
    assert all(reason.isprintable() and 0 < len(reason) <= 240 for reason in reasons)
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr().err == ""
