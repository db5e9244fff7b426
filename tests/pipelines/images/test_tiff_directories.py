"""TIFF as cameras, scanners and microscopes write it: directories, pages, stacks, byte counts and palettes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def directory(data: bytes, number: int = 0) -> int:
    """Where the directory of a page of a little-endian file begins."""
    (place,) = struct.unpack_from("<I", data, 4)
    for _ in range(number):
        (entries,) = struct.unpack_from("<H", data, place)
        (place,) = struct.unpack_from("<I", data, place + 2 + 12 * entries)
    return place


def with_counts(data: bytes, change: Any) -> bytes:
    """Change the byte counts of strips in the first directory of a little-endian file."""
    mended, start = bytearray(data), directory(data)
    (entries,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from("<HHI", data, entry)
        if tag == 279:
            code = {3: "H", 4: "I"}[kind] * count
            inline = struct.calcsize("<" + code) <= 4
            place = entry + 8 if inline else struct.unpack_from("<I", data, entry + 8)[0]
            values = struct.unpack_from("<" + code, data, place)
            struct.pack_into("<" + code, mended, place, *(change(value) for value in values))
    return bytes(mended)


def without_tag(data: bytes, tag: int) -> bytes:
    """Give a tag of the first directory a number that nobody knows."""
    mended, start = bytearray(data), directory(data)
    (entries,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            struct.pack_into("<H", mended, entry, 60_000)
    return bytes(mended)


@pytest.mark.parametrize("largest", [255, 65535])
def test_a_palette_of_8_and_of_16_bits_is_read_as_libtiff_reads_it(read, largest):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    data = tiff(indices, photometric="palette", colormap=colours * np.uint16(largest // 255))
    image = read(data)
    np.testing.assert_array_equal(image.pixels, colours.T[indices])
    with PIL.Image.open(io.BytesIO(tiff(indices, photometric="palette", colormap=colours * 257))) as reference:
        np.testing.assert_array_equal(image.pixels, np.asarray(reference.convert("RGB")))


def test_a_palette_of_greys_gives_a_grey_image(read):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    greys = np.arange(255, -1, -1, dtype=np.uint16)
    image = read(tiff(indices, photometric="palette", colormap=np.stack([greys * 257] * 3)))
    np.testing.assert_array_equal(image.pixels, greys[indices][..., None])


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}, {"compression": "lzw"}, {"compression": "zlib"}], ids=str)
@pytest.mark.parametrize("bits", [8, 1])
def test_byte_counts_of_zero_are_found_again(read, noise16, options, bits):
    if bits == 8:
        stored = noise16.astype(np.uint8)
        data = tiff(stored, photometric="rgb", **options)
    else:
        stored = (noise16[..., :1] > 30_000) * np.uint8(255)
        data = tiff(stored[..., 0] > 0, photometric="minisblack", **options)
    for changed in (with_counts(data, lambda _: 0), without_tag(data, 279)):
        np.testing.assert_array_equal(read(changed).pixels, stored)


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}], ids=str)
def test_byte_counts_beyond_the_pixels_are_cut(read, noise16, options):
    data = tiff(noise16, photometric="rgb", **options)
    for more in (1, 1000, 60_000):
        changed = with_counts(data, lambda count, more=more: min(count + more, 65535))
        np.testing.assert_array_equal(read(changed).pixels, noise16)


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}, {"compression": "lzw"}, {"compression": "zlib"}], ids=str)
@pytest.mark.parametrize("count", [0, 65535])
def test_a_truncated_file_of_wrong_byte_counts_still_fails(read, noise16, options, count):
    data = with_counts(tiff(noise16.astype(np.uint8), photometric="rgb", **options), lambda _: count)
    with pytest.raises(ImageError, match=r"is truncated|is damaged|cannot be decoded"):
        read(data[: len(data) - 700])


def test_a_strip_that_was_never_written_fails(read, noise16):
    data = tiff(noise16, photometric="rgb", rowsperstrip=12)  # two strips
    start = directory(data)
    (entries,) = struct.unpack_from("<H", data, start)
    changed = bytearray(with_counts(data, lambda _: 0))
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] == 273:
            (place,) = struct.unpack_from("<I", data, entry + 8)
            first, _ = struct.unpack_from("<II", data, place)
            struct.pack_into("<I", changed, place + 4, first + 100)
    with pytest.raises(ImageError, match="is damaged: a strip or tile without data"):
        read(bytes(changed))


def test_alpha_behind_a_channel_of_unknown_meaning_is_kept(read, noise16):
    stored = np.concatenate([noise16, noise16[..., 2:], noise16[..., :1]], axis=2)
    image = read(tiff(stored, photometric="rgb", extrasamples=["unspecified", "unassalpha"]))
    np.testing.assert_array_equal(image.pixels, noise16)
    np.testing.assert_array_equal(image.alpha, noise16[..., :1])
    assert image.note == "channels that are neither colour nor alpha ignored: 1"
    grey = read(
        tiff(noise16, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified", "unassalpha"])
    )
    np.testing.assert_array_equal(grey.pixels, noise16[..., :1])
    np.testing.assert_array_equal(grey.alpha, noise16[..., 2:])


def pages(*some: tuple[np.ndarray, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for array, options in some:
            file.write(array, metadata=None, **options)
    return buffer.getvalue()


THUMBNAIL, MASK = {"subfiletype": 1, "photometric": "rgb"}, {"subfiletype": 4, "photometric": "minisblack"}


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_thumbnail_in_front_of_the_picture_is_passed_over(read, noise16, bigtiff):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff, byteorder=">" if bigtiff else "<") as file:
        file.write(noise16[::4, ::4], metadata=None, **THUMBNAIL)
        file.write(noise16, photometric="rgb", metadata=None)
    image = read(buffer.getvalue())
    np.testing.assert_array_equal(image.pixels, noise16)
    assert image.note == "the TIFF begins with a thumbnail or mask: page 2 of 2 was read"


def test_the_old_tag_of_thumbnails_counts_as_well(read, noise16):
    data = pages(
        (noise16[::4, ::4], {"photometric": "rgb", "extratags": [(255, 3, 1, 2, True)]}),
        (noise16, {"photometric": "rgb", "extratags": [(255, 3, 1, 1, True)]}),
    )
    np.testing.assert_array_equal(read(data).pixels, noise16)


def test_a_picture_in_a_sub_directory_of_its_thumbnail_is_found(read, noise16):
    data = pages(
        (noise16[::4, ::4], THUMBNAIL | {"subifds": 2}),
        (noise16[::2, ::2], THUMBNAIL),
        (noise16, {"photometric": "rgb"}),
    )
    image = read(data)
    np.testing.assert_array_equal(image.pixels, noise16)
    assert image.note == "the TIFF begins with a thumbnail or mask: the picture in its sub-directory was read"


def test_a_mask_in_front_of_the_picture_is_passed_over(read, noise16):
    data = pages((noise16[..., 0] > 9, MASK), (noise16, {"photometric": "rgb"}))
    np.testing.assert_array_equal(read(data).pixels, noise16)


def test_thumbnails_behind_the_picture_need_no_note_but_masks_do(read, noise16):
    picture = (noise16, {"photometric": "rgb"})
    image = read(pages(picture, (noise16[::2, ::2], THUMBNAIL), (noise16[::4, ::4], THUMBNAIL)))
    assert image.note is None
    image = read(pages((noise16, {"photometric": "rgb", "subifds": 1}), (noise16[::2, ::2], THUMBNAIL)))
    assert image.note is None
    image = read(pages(picture, (noise16[..., 0] > 9, MASK)))
    np.testing.assert_array_equal(image.pixels, noise16)
    assert image.note == "the TIFF has a mask page: ignored"


def test_a_file_of_thumbnails_only_gives_the_largest(read, noise16):
    image = read(pages((noise16[::4, ::4], THUMBNAIL), (noise16, THUMBNAIL), (noise16[::2, ::2], THUMBNAIL)))
    np.testing.assert_array_equal(image.pixels, noise16)


def test_a_larger_page_behind_the_first_is_named(read, noise16):
    image = read(pages((noise16[::4, ::4], {"photometric": "rgb"}), (noise16, {"photometric": "rgb"})))
    assert image.note == "TIFF with 2 pages: the first, of 8 x 6; the largest has 29 x 23"


def test_an_imagej_stack_in_one_directory_says_so(read, noise16):
    stack = np.moveaxis(noise16, 2, 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ascontiguousarray(stack), imagej=True, metadata={"axes": "ZYX"})
    several = read(buffer.getvalue())
    assert several.note == "TIFF with 3 pages: the first"
    data = bytearray(buffer.getvalue())
    (entries,) = struct.unpack_from("<H", data, directory(data))
    struct.pack_into("<I", data, directory(data) + 2 + 12 * entries, 0)  # no next page: as of large stacks
    image = read(bytes(data))
    np.testing.assert_array_equal(image.pixels[..., 0], stack[0])
    assert image.note == "ImageJ stack of 3 images: the first"


def test_other_stacks_in_one_directory_say_so(read, noise16):
    stack = np.ascontiguousarray(np.moveaxis(noise16, 2, 0))
    image = read(tiff(stack, photometric="minisblack", truncate=True))
    np.testing.assert_array_equal(image.pixels[..., 0], stack[0])
    assert image.note == "TIFF stack of 3 images: the first"


def test_an_ome_tiff_of_several_planes_says_so(read, noise16):
    stack = np.ascontiguousarray(np.moveaxis(noise16, 2, 0))
    image = read(tiff(stack, photometric="minisblack", ome=True, metadata={"axes": "CYX"}))
    np.testing.assert_array_equal(image.pixels[..., 0], stack[0])
    assert image.note == "TIFF with 3 pages: the first"
