from __future__ import annotations

import gc
import struct
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import pytest

from pipelines.errors import ImageError


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_kept_to_the_bit(read, channels):
    stored = np.random.default_rng(channels).integers(0, 65536, (23, 29, channels), dtype=np.uint16)
    image = read(imagecodecs.png_encode(stored.squeeze()))
    colours = channels - (channels in {2, 4})
    assert image.bit_depth == 16
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels, stored[..., :colours])
    if channels in {2, 4}:
        np.testing.assert_array_equal(image.alpha, stored[..., colours:])
    else:
        assert image.alpha is None


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_8_bits_are_kept_to_the_bit(read, encode, picture, mode):
    stored = picture.convert(mode)
    if mode in {"LA", "RGBA"}:
        stored.putalpha(picture.convert("L"))
    image = read(encode(stored, "PNG"))
    array = np.asarray(stored).reshape(23, 29, -1)
    assert (image.bit_depth, image.pixels.dtype) == (8, np.uint8)
    np.testing.assert_array_equal(image.pixels, array[..., : image.pixels.shape[2]])
    if mode in {"LA", "RGBA"}:
        np.testing.assert_array_equal(image.alpha, array[..., -1:])


def test_one_bit_becomes_0_and_255(read, encode, picture):
    stored = picture.convert("1")
    image = read(encode(stored, "PNG"))
    assert (image.bit_depth, image.pixels.dtype) == (1, np.uint8)
    np.testing.assert_array_equal(image.pixels[..., 0], np.where(np.asarray(stored), 255, 0))


def test_four_bits_are_scaled_to_eight(read):
    rows = b"".join(b"\x00" + row for row in (b"\x01\x23", b"\xef\x80"))
    data = header(4, 2, depth=4, colour=0) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    image = read(data)
    assert image.bit_depth == 4
    assert image.pixels[..., 0].tolist() == [[0, 17, 34, 51], [238, 255, 136, 0]]


def test_a_palette_becomes_rgb_and_its_transparency_alpha(read, encode, picture):
    stored = picture.quantize(12)
    image = read(encode(stored, "PNG", transparency=bytes([0, 77])))
    np.testing.assert_array_equal(image.pixels, np.asarray(stored.convert("RGB")))
    indices = np.asarray(stored)
    np.testing.assert_array_equal(image.alpha[..., 0], np.select([indices == 0, indices == 1], [0, 77], 255))
    assert image.bit_depth == 8


def test_a_transparent_colour_becomes_alpha(read, encode):
    stored = PIL.Image.new("RGB", (3, 2), (1, 2, 3))
    stored.putpixel((1, 1), (9, 9, 9))
    image = read(encode(stored, "PNG", transparency=(9, 9, 9)))
    assert image.alpha[..., 0].tolist() == [[255, 255, 255], [255, 0, 255]]


def test_of_an_animation_the_first_frame_is_taken(read, encode, picture):
    data = encode(picture, "PNG", save_all=True, append_images=[picture.rotate(180), picture.rotate(90)])
    image = read(data)
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.note == "animated PNG: first of 3 frames"


def test_profile_and_resolution_are_handed_over(read, encode, picture):
    profile = imagecodecs.cms_profile("srgb")
    image = read(encode(picture, "PNG", icc_profile=profile, dpi=(300, 150)))
    assert image.icc == profile
    assert image.dpi == pytest.approx((300, 150), rel=1e-4)


def test_a_profile_of_another_colour_space_is_not_handed_over(read, encode, picture):
    assert read(encode(picture.convert("L"), "PNG", icc_profile=imagecodecs.cms_profile("srgb"))).icc is None


def test_an_odd_profile_prints_no_warning(read, encode, picture, capfd):
    assert read(encode(picture, "PNG", icc_profile=b"not a profile")).icc is None
    assert capfd.readouterr().err == ""


def test_a_profile_that_inflates_without_end_is_dropped(read, encode, picture):
    data = encode(picture, "PNG")
    bomb = chunk(b"iCCP", b"bomb\x00\x00" + zlib.compress(bytes(64 * 2**20), 9))
    image = read(data[:33] + bomb + data[33:])
    assert image.icc is None
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_a_truncated_file_fails(read, kept, noise16):
    data = imagecodecs.png_encode(noise16)
    with pytest.raises(ImageError, match=r"is truncated: its last IDAT chunk holds|is truncated: ends after"):
        read(data[: int(len(data) * kept)])


def test_a_file_without_its_end_fails(read, encode, picture):
    with pytest.raises(ImageError, match=r"is truncated: ends after \d[\d,]* bytes, before its IEND chunk"):
        read(encode(picture, "PNG")[:-12])


def test_a_file_of_a_few_bytes_fails(read):
    with pytest.raises(ImageError, match="is truncated: ends after 10 bytes, inside its header"):
        read(header(3, 3)[:10])


def test_a_changed_byte_fails(read, noise16, capfd):
    data = bytearray(imagecodecs.png_encode(noise16))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="is damaged: wrong checksum of the IDAT chunk at byte"):
        read(bytes(data))
    assert capfd.readouterr().err == ""


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def interlaced(pixels: np.ndarray, *, passes: int = 7) -> bytes:
    """A file of seven passes, which Pillow does not write."""
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in PASSES[:passes] for row in pixels[y::dy, x::dx])
    start = bytearray(header(pixels.shape[1], pixels.shape[0]))
    start[28] = 1
    start[29:33] = zlib.crc32(start[12:29]).to_bytes(4, "big")
    return bytes(start) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_an_interlaced_file_that_lacks_its_last_pass_fails(read, picture):
    np.testing.assert_array_equal(read(interlaced(np.asarray(picture))).pixels, np.asarray(picture))
    with pytest.raises(ImageError, match="cannot be decoded as PNG"):
        read(interlaced(np.asarray(picture), passes=6))


def test_what_libraries_log_is_not_printed(tmp_path, picture):
    """pytest has a handler for logs, so that another process reads the files."""
    (tmp_path / "interlaced.png").write_bytes(interlaced(np.asarray(picture)))
    program = (
        "import logging, sys, pathlib\n"
        "from pipelines.images import read_image\n"
        "if 'root' in sys.argv: logging.basicConfig(level=logging.DEBUG)\n"
        "print(read_image(pathlib.Path(sys.argv[1]), max_pixels=10**6).pixels.shape)"
    )
    for words in ([], ["root"]):
        command = [sys.executable, "-c", program, str(tmp_path / "interlaced.png"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("(23, 29, 3)\n", "")


def test_bytes_after_the_end_do_not_matter(read, encode, picture):
    image = read(encode(picture, "PNG") + b"trailer")
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.note == "7 bytes after the end of the PNG ignored"


def test_a_header_that_states_a_bomb_is_refused(read):
    data = header(60_000, 60_000) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="is 60000 x 60000 = 3,600 million pixels, above the limit of 250 million"):
        read(data, max_pixels=250_000_000)


def test_a_real_bomb_is_refused_before_it_is_decoded(read, encode, monkeypatch):
    data = encode(PIL.Image.new("1", (20_000, 20_000)), "PNG")
    assert len(data) < 100_000

    def explode(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(imagecodecs, "png_decode", explode)
    with pytest.raises(ImageError, match="is 20000 x 20000 = 400 million pixels"):
        read(data, max_pixels=250_000_000)


@pytest.mark.parametrize("at", [24, 25, 26, 27, 28])  # depth, colour type, compression, filter, interlacing
def test_a_header_that_no_file_has_is_refused_without_a_word_on_the_terminal(read, encode, picture, capfd, at):
    data = bytearray(encode(picture, "PNG"))
    data[at] = 77
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageError, match="is damaged: no PNG file has"):
        read(bytes(data))
    assert capfd.readouterr().err == ""


def test_files_that_cannot_be_decoded_take_no_references_to_none(read):
    """imagecodecs gives up one with each: before Python 3.12 some eight thousand of them would end the process."""
    rows = zlib.compress(bytes(10 * (1 + 3 * 20)))  # 10 of 20 rows
    data = header(20, 20) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    gc.collect()
    before = sys.getrefcount(None)
    for _ in range(300):
        with pytest.raises(ImageError):
            read(data)
    gc.collect()
    assert sys.getrefcount(None) > before - 100
