"""HEIC and AVIF: depth, colour, transparency, turns, sequences, damage, and headers that lie."""

from __future__ import annotations

import io
import resource
import struct
import sys

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import pytest

from pipelines.errors import ImageError
from pipelines.images.exif import upright

TOLERANCE = 3  # levels of 8 bits: colours are stored as luma and chroma
PROFILE = bytes(imagecodecs.cms_profile("rgb", whitepoint=(0.31, 0.33), primaries=(0.6, 0.3, 0.3, 0.6, 0.15, 0.1)))


def heic(pixels: np.ndarray, mode: str, *, bits: int = 8, exif: bytes | None = None, **options: object) -> bytes:
    height, width = pixels.shape[:2]
    file = pillow_heif.from_bytes(mode=mode, size=(width, height), data=np.ascontiguousarray(pixels).tobytes())
    file[0].info |= {} if exif is None else {"exif": exif}
    buffer, before = io.BytesIO(), pillow_heif.options.SAVE_HDR_TO_12_BIT
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        file.save(buffer, **{"quality": -1, "chroma": 444} | options)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = before
    return buffer.getvalue()


def turned_by(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def assert_like(image, expected: np.ndarray, tolerance: int = TOLERANCE) -> None:
    assert image.pixels.shape == expected.shape
    apart = np.abs(image.pixels.astype(int) - expected.astype(int)).max()
    assert apart <= (tolerance if image.pixels.dtype == np.uint8 else 257 * tolerance)


def test_heic_is_read_whatever_it_is_called(read, picture):
    image = read(heic(np.asarray(picture), "RGB"), name="photo.jpg")
    assert_like(image, np.asarray(picture))
    assert (image.bit_depth, image.alpha, image.note) == (8, None, None)


def test_grey_heic_has_one_channel(read, picture):
    grey = np.asarray(picture.convert("L"))
    assert_like(read(heic(grey, "L")), grey[..., None])


@pytest.mark.parametrize("bits", [10, 12])
def test_heic_keeps_more_than_8_bits(read, bits):
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[:, None], 64, axis=1) * 4  # 1,020 of 10 bits
    stored = np.dstack([ramp * 64] * 3)  # as 16 bits
    image = read(heic(stored, "RGB;16", bits=bits))
    assert image.bit_depth == bits
    assert image.pixels.dtype == np.uint16
    assert_like(image, stored, 1)
    assert len(np.unique(image.pixels)) > 200
    assert image.pixels.max() > 65_000


def test_heic_keeps_transparency_and_profile(read, picture):
    clear = np.dstack([np.asarray(picture), np.asarray(picture.convert("L"))])
    image = read(heic(clear, "RGBA", icc_profile=PROFILE))
    assert_like(image, clear[..., :3])
    assert np.abs(image.alpha[..., 0].astype(int) - clear[..., 3]).max() <= TOLERANCE
    assert image.icc == PROFILE


@pytest.mark.parametrize(("code", "name"), [((12, 13), "P3"), ((1, 13), "sRGB")])
def test_a_colour_code_becomes_a_profile(read, picture, code, name):
    nclx = {
        "color_primaries": code[0],
        "transfer_characteristics": code[1],
        "matrix_coefficients": 6,
        "full_range_flag": 1,
    }
    image = read(heic(np.asarray(picture), "RGB", nclx_profile=nclx))
    wide = imagecodecs.cms_transform(
        np.uint8([[[0, 255, 0]]]), image.icc, imagecodecs.cms_profile("srgb"), colorspace="rgb", outcolorspace="rgb",
        outdtype="float32",
    )  # fmt: skip
    assert bool(wide.min() < -0.1) is (name == "P3")
    assert image.icc_source == ("nclx code of the file" if name == "P3" else None)


def test_a_colour_code_of_high_dynamic_range_is_kept_as_a_code(read):
    stored = (np.arange(40 * 64, dtype=np.uint16).reshape(40, 64) % 1024) * 64
    nclx = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
    image = read(heic(np.dstack([stored] * 3), "RGB;16", nclx_profile=nclx))
    assert (image.icc, image.cicp) == (None, bytes((9, 16, 0, 1)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(read, picture, orientation):
    pixels = np.asarray(picture)
    assert_like(read(heic(pixels, "RGB", exif=turned_by(orientation))), upright(pixels, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_once(read, encode, picture, orientation):
    data = encode(picture, "AVIF", quality=100, subsampling="4:4:4", exif=turned_by(orientation))
    assert_like(read(data), upright(np.asarray(picture), orientation))


def test_avif_keeps_transparency_and_profile(read, encode, picture):
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))
    image = read(encode(clear, "AVIF", quality=100, subsampling="4:4:4", icc_profile=PROFILE))
    assert_like(image, np.asarray(picture))
    assert np.abs(image.alpha[..., 0].astype(int) - np.asarray(picture.convert("L"))).max() <= TOLERANCE
    assert image.icc == PROFILE


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3])
def test_avif_keeps_more_than_8_bits(read, bits, channels):
    stored = (np.arange(40 * 64, dtype=np.uint16).reshape(40, 64) % 1024) << (bits - 10)
    pixels = stored if channels == 1 else np.dstack([stored] * 3)
    image = read(imagecodecs.avif_encode(pixels, level=100, bitspersample=bits))
    assert (image.bit_depth, image.pixels.dtype, image.pixels.shape[2]) == (bits, np.uint16, channels)
    top = 2**bits - 1
    expected = (stored.astype(np.uint64) * 65535 + top // 2) // top
    np.testing.assert_array_equal(image.pixels[..., 0], expected)


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def full_box(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, flags]), *content)


def heif(
    brand: bytes, kinds: list[bytes], properties: list[list[bytes]], places: bytes, *, tiles: bytes = b""
) -> bytes:
    """The header of a file whose first item is its picture; items are numbered from 1, and share no properties."""
    items = [
        full_box(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", version=2)
        for number, kind in enumerate(kinds, 1)
    ]
    numbers = iter(range(1, 1 + sum(map(len, properties))))
    own = [bytes([len(each), *(next(numbers) for _ in each)]) for each in properties]
    known = b"".join(struct.pack(">H", number) + each for number, each in enumerate(own, 1))
    return box(b"ftyp", brand, bytes(4), b"mif1miaf", brand) + full_box(
        b"meta",
        full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", b"\0\1"),
        full_box(b"iinf", struct.pack(">H", len(items)), *items),
        places,
        full_box(b"iref", box(b"dimg", tiles)) if tiles else b"",
        box(b"iprp", box(b"ipco", *(each for some in properties for each in some)),
            full_box(b"ipma", struct.pack(">I", len(own)), known)),
    )  # fmt: skip


def stated_size(width: int, height: int) -> bytes:
    return full_box(b"ispe", struct.pack(">II", width, height))


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_avif_of_tiles_has_the_depth_of_these(read, bits):
    """Values of 10 bits are not nearly black ones of 16."""
    ramp = (np.arange(64 * 128, dtype=np.uint16).reshape(64, 128) % 256) << (bits - 8)
    halves = [np.dstack([ramp[:, start : start + 64]] * 3) for start in (0, 64)]
    files = [
        imagecodecs.avif_encode(each.astype(f"u{1 + (bits > 8)}"), level=100, bitspersample=bits) for each in halves
    ]
    (start,) = {file.index(b"av1C") for file in files}
    configuration = files[0][start - 4 : start - 4 + int.from_bytes(files[0][start - 4 : start], "big")]
    parts = [bytes(4) + struct.pack(">HH", 128, 64), *(file[file.index(b"mdat") + 4 :] for file in files)]
    parts[0] = bytes([0, 0, 0, 1]) + parts[0][4:]  # a row of two
    tile = [stated_size(64, 64), configuration]

    def header(first: int) -> bytes:
        at = [first + sum(map(len, parts[:number])) for number in range(3)]
        places = b"".join(
            struct.pack(">HHHII", number + 1, 0, 1, at[number], len(parts[number])) for number in range(3)
        )
        own = full_box(b"iloc", b"\x44\0", struct.pack(">H", 3), places)
        kinds = [b"grid", b"av01", b"av01"]
        return heif(b"avif", kinds, [[stated_size(128, 64)], tile, tile], own, tiles=struct.pack(">4H", 1, 2, 2, 3))

    image = read(header(len(header(0)) + 8) + box(b"mdat", *parts))
    assert (image.bit_depth, image.pixels.shape) == (bits, (64, 128, 3))
    top = 2**bits - 1
    largest = 255 if bits == 8 else 65535
    np.testing.assert_array_equal(image.pixels[..., 0], (ramp.astype(np.int64) * largest + top // 2) // top)


def test_an_avif_file_whose_data_are_zero_in_part_fails(read, encode, picture):
    """libavif decodes them to something."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    data = encode(PIL.Image.fromarray(noise), "AVIF", quality=90)
    assert read(data).pixels.shape == (128, 128, 3)
    start = data.index(b"mdat") + 4
    for place in (start + (len(data) - start) // 2, len(data) - 512):
        with pytest.raises(ImageError, match="is damaged: a part of its image data is zero or missing"):
            read(data[:place] + bytes(512) + data[place + 512 :])


def test_of_an_avif_sequence_the_picture_beside_it_is_taken(read, encode, picture):
    frames = [picture.rotate(180)] * 3
    options = {"quality": 100, "subsampling": "4:4:4"}
    image = read(encode(picture, "AVIF", save_all=True, append_images=frames, **options))
    assert_like(image, np.asarray(picture), 12)
    assert image.note == "AVIF image sequence of 4 frames: the picture beside them"


def test_of_an_avif_sequence_without_one_the_first_frame_is_taken(read, encode, picture):
    options = {"quality": 100, "subsampling": "4:4:4"}
    data = encode(picture, "AVIF", save_all=True, append_images=[picture.rotate(180)], **options)
    image = read(data.replace(b"meta", b"free", 1).replace(b"avif", b"iso8"))
    assert_like(image, np.asarray(picture), 12)
    assert image.note == "AVIF image sequence of 2 frames: the first"


def test_of_a_heic_file_of_several_images_the_primary_one_is_taken(read, picture):
    file = pillow_heif.from_pillow(picture.rotate(180))
    file.add_from_pillow(picture)
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, primary_index=1)
    image = read(buffer.getvalue())
    assert_like(image, np.asarray(picture))
    assert image.note == "HEIC file of 2 images: the primary one"


def test_a_clean_aperture_is_cut_out(read, encode, picture):
    data = encode(picture, "AVIF", quality=100, subsampling="4:4:4", icc_profile=PROFILE)
    at = data.index(b"colrprof")  # the box of the profile becomes one of the part to be seen
    clap = b"clap" + struct.pack(">4I4i", 20, 1, 10, 1, -1, 2, 1, 2)  # 20 x 10, half a pixel aside, like the middle
    changed = bytearray(data[:at] + clap + data[at + len(clap) :])
    counted = data.index(b"ipma") + 14  # of the properties of the picture; a part to be seen must be marked essential
    for number in range(changed[counted]):
        changed[counted + 1 + number] |= 0x80
    assert_like(read(bytes(changed)), np.asarray(picture)[7:17, 4:24])


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_every_truncated_file_is_refused(read, encode, picture, kind):
    pixels = np.asarray(picture)
    data = heic(pixels, "RGB") if kind == "heic" else encode(picture, "AVIF", quality=90)
    for length in [*range(20, len(data), len(data) // 40), len(data) - 1]:
        with pytest.raises(ImageError, match=r"truncated|damaged|no still picture"):
            read(data[:length])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_heic_file_whose_data_are_zero_in_part_fails(read, picture, mode):
    """libheif paints over them."""
    stored = np.asarray(picture.resize((150, 110)))
    stored = stored if mode == "RGB" else np.dstack([stored, stored[..., :1]])
    data = heic(stored, mode)
    assert read(data).pixels.shape == (110, 150, 3)
    start = data.index(b"mdat") + 4
    for place, length in ((start + (len(data) - start) // 2, 40), (len(data) - 9, 9)):
        with pytest.raises(ImageError, match="is damaged: a part of its image data is zero or missing"):
            read(data[:place] + bytes(length) + data[place + length :])


def test_what_a_telephone_appends_does_not_count(read, picture):
    assert_like(read(heic(np.asarray(picture), "RGB") + b"\xff\xff\xff\xffSEFT and more"), np.asarray(picture))


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_a_header_that_says_too_much_is_refused_before_decoding(read, encode, picture, kind, monkeypatch):
    data = heic(np.asarray(picture), "RGB") if kind == "heic" else encode(picture, "AVIF")
    at = data.index(b"ispe") + 8
    monkeypatch.setattr(pillow_heif, "open_heif", None)
    monkeypatch.setattr(imagecodecs, "avif_decode", None)
    with pytest.raises(ImageError, match="is 60000 x 60000 = 3,600 million pixels, above the limit of 1 million"):
        read(data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :])


def test_a_header_that_says_too_little_is_refused(read):
    data = heic(np.zeros((400, 400, 3), np.uint8), "RGB")
    at = data.index(b"ispe") + 8
    with pytest.raises(ImageError, match="cannot be decoded as HEIC"):
        read(data[:at] + struct.pack(">II", 40, 40) + data[at + 8 :], max_pixels=2000)


def places_of_nothing() -> bytes:
    """Two hundred items, each in 65,535 parts that take no room."""
    items = b"".join(struct.pack(">IHHH", number, 0, 0, 65_535) for number in range(1, 201))
    return full_box(b"iloc", bytes(2), struct.pack(">I", 200), items, version=2)


def places_of_everything() -> bytes:
    """An item that is the whole file two thousand times."""
    return full_box(b"iloc", b"\x04\0", struct.pack(">HHHH", 1, 1, 0, 2000), struct.pack(">I", 2_000_000) * 2000)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (places_of_nothing, "is damaged: its items are in more than 20,000 parts"),
        (places_of_everything, "is damaged: its items should have 4,000,000,000 bytes in a file of "),
    ],
)
@pytest.mark.parametrize(("brand", "kind", "configuration"), [(b"heic", b"hvc1", b"hvcC"), (b"avif", b"av01", b"av1C")])
def test_places_that_take_minutes_and_gigabytes_are_refused_soon(read, places, reason, brand, kind, configuration):
    header = heif(brand, [kind], [[stated_size(64, 64), box(configuration, bytes(23))]], places())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=reason):
        read(header + bytes(2_000_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_heic_file_names_the_package_that_reads_it(read, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"is a HEIC image, and pillow-heif is not installed, .* pip install pillow-heif"
    ):
        read(heic(np.asarray(picture), "RGB"))


@pytest.mark.parametrize(
    ("brand", "told"), [(b"isom", "is a video or another MP4-like file"), (b"crx ", "is a camera raw file")]
)
def test_other_files_of_the_family_are_named(read, brand, told):
    with pytest.raises(ImageError, match=told):
        read(struct.pack(">I4s4sI", 16, b"ftyp", brand, 0) + bytes(64))


def test_a_general_brand_is_told_apart_by_the_others(read, encode, picture):
    data = encode(picture, "AVIF", quality=100, subsampling="4:4:4")
    assert_like(read(data[:8] + b"mif1" + data[12:]), np.asarray(picture))
