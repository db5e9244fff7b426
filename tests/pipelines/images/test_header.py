from __future__ import annotations

import pytest

from pipelines.base.safe_text import one_line
from pipelines.errors import ImageError
from pipelines.images.header import check_pixels, sniff


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1", 'is a text file.*begins "version https://git-lfs'),
        ("größe;höhe\n".encode() * 300, "is a text file"),
        (b"<!DOCTYPE html><html>", "is a text file.*DOCTYPE"),
        (b"P5 is how this sentence begins", "is a text file"),
        (b"BMW is a car", "is a text file"),
        (bytes(4096), "zero bytes only"),
        (b"%PDF-1.7\n", "is a PDF document.*save it as PNG or TIFF"),
        (b"\x00\x00\x00\x1cftypmp42\x00", r"a video .*'mp42'"),
        (b"\x93\x01\x02\x00\xff\xfe", "not in a known image format.*93 01 02 00 ff fe"),
    ],
)
def test_what_is_not_an_image_is_said_in_plain_words(read, data, reason):
    with pytest.raises(ImageError, match=reason):
        read(data)


def test_riff_is_webp_only_with_its_second_name():
    assert sniff(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "WebP"
    with pytest.raises(ImageError, match="not in a known image format"):
        sniff(b"RIFF\x00\x00\x00\x00WAVEfmt ")


def test_the_limit_itself_is_allowed():
    check_pixels(10, 10, 100)
    with pytest.raises(ImageError, match=r"is 101 x 1 = 101 pixels, above the limit of 100 \(KINTSUGI_MAX_PIXELS\)"):
        check_pixels(101, 1, 100)


def test_large_sizes_are_told_in_millions():
    message = r"is 30000 x 30000 = 900 million pixels, above the limit of 250 million \(KINTSUGI_MAX_PIXELS\)"
    with pytest.raises(ImageError, match=message):
        check_pixels(30_000, 30_000, 250_000_000)


def test_a_size_just_above_the_limit_is_not_rounded_to_it():
    with pytest.raises(ImageError, match=r"= 250\.0005 million pixels, above the limit of 250 million"):
        check_pixels(500_001, 500, 250_000_000)


def test_no_pixels():
    with pytest.raises(ImageError, match="has no pixels: its header says 0 x 7"):
        check_pixels(0, 7, 100)


def test_one_line_is_printable_and_short():
    assert one_line("a\n\tb\x1b[31m\udce9") == "a b?[31m?"
    assert len(one_line("x" * 1000)) == 160
