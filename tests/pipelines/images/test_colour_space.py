"""Colour spaces that files state without a profile: the numbers mean the same colours in every result."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.TiffImagePlugin
import pytest
import tifffile

from pipelines.errors import ImageError
from pipelines.images.colour_space import ADOBE_RGB, SRGB, ColourSpace, is_plain_srgb, profile_for, profile_of
from pipelines.images.write import SUFFIXES, encode_image

ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)  # cHRM: white, red, green, blue
RAMP = np.stack(np.meshgrid(np.arange(0, 256, 15), np.arange(0, 256, 15), [0, 90, 255]), axis=-1).reshape(18, -1, 3)
COLOURS = PIL.Image.fromarray(RAMP.astype(np.uint8))


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(*chunks: tuple[bytes, bytes], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    COLOURS.convert(mode).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found[data[place + 4 : place + 8]] = data[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def seen(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """The pixels in sRGB, by another library than ours."""
    source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(icc))
    image = PIL.Image.fromarray(pixels.squeeze())
    target = PIL.ImageCms.createProfile("sRGB")
    return np.asarray(PIL.ImageCms.profileToProfile(image, source, target, outputMode="RGB")).astype(int)


def as_srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def light_in_srgb(light: np.ndarray, chromaticities: tuple[float, ...]) -> np.ndarray:
    """Linear values of other primaries and the white of sRGB as those of sRGB; from the definition."""

    def to_xyz(xy: np.ndarray) -> np.ndarray:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in xy]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    srgb = to_xyz(np.array([[0.64, 0.33], [0.3, 0.6], [0.15, 0.06]]))
    return light @ np.linalg.solve(srgb, to_xyz(np.array(chromaticities).reshape(3, 2))).T


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_png_of_linear_light_keeps_its_meaning(read, mode):
    image = read(png((b"gAMA", struct.pack(">I", 100_000)), mode=mode))
    assert image.icc is not None
    expected = np.broadcast_to(as_srgb(image.pixels / 255), (*image.pixels.shape[:2], 3))
    not_black = np.broadcast_to(image.pixels > 10, expected.shape)  # where Little CMS itself is coarse in grey
    np.testing.assert_allclose(seen(image.pixels, image.icc)[not_black], expected[not_black], atol=1.5)
    assert image.icc_source == "gAMA chunk"


def test_a_png_of_other_primaries_keeps_its_meaning(read):
    image = read(png((b"gAMA", struct.pack(">I", 45_455)), (b"cHRM", struct.pack(">8I", *ADOBE))))
    assert image.icc is not None
    light = light_in_srgb((image.pixels / 255) ** 2.2, tuple(value / 1e5 for value in ADOBE[2:]))
    inside = ((light > 0.002) & (light < 1)).all(axis=2)
    np.testing.assert_allclose(seen(image.pixels, image.icc)[inside], as_srgb(light[inside]), atol=2)
    assert image.icc_source == "gAMA and cHRM chunks"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "chunks",
    [
        [(b"sRGB", b"\0")],
        [(b"gAMA", struct.pack(">I", 45_455))],
        [
            (b"gAMA", struct.pack(">I", 45_455)),
            (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        ],
        [(b"cICP", bytes([1, 13, 0, 1]))],
    ],
    ids=lambda chunks: b"+".join(kind for kind, _ in chunks).decode(),
)
def test_srgb_stays_stated(read, chunks, mode):
    image = read(png(*chunks, mode=mode))
    assert is_plain_srgb(image.icc, image.pixels.shape[2])
    assert image.icc_source is None
    written, _ = encode_image("png", image.pixels, icc=image.icc, cicp=image.cicp)
    assert chunks_of(written)[b"sRGB"] == b"\0"
    assert b"iCCP" not in chunks_of(written)
    assert np.abs(seen(image.pixels, image.icc) - image.pixels).max() <= 1
    for kind in ("tiff", "webp", "jpeg"):
        data, notes = encode_image(kind, image.pixels, icc=image.icc)
        assert notes == ()
        if image.pixels.shape[2] == 3 or kind != "webp":  # which makes RGB of grey
            assert is_plain_srgb(read(data, name=f"x{SUFFIXES[kind]}").icc, image.pixels.shape[2])


def test_a_profile_counts_more_than_chunks(read, encode, picture):
    profile = imagecodecs.cms_profile("adobergb")
    data = encode(picture, "PNG", icc_profile=profile)
    image = read(data[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + data[33:])
    assert (image.icc, image.icc_source) == (profile, None)


def test_a_coded_colour_space_goes_into_png_as_it_is_and_elsewhere_as_a_profile(read):
    image = read(png((b"cICP", bytes([12, 13, 0, 1])), (b"gAMA", struct.pack(">I", 100_000))))
    p3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    value = image.pixels / 255
    light = light_in_srgb(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4), p3)
    inside = ((light > 0.002) & (light < 1)).all(axis=2)
    np.testing.assert_allclose(seen(image.pixels, image.icc)[inside], as_srgb(light[inside]), atol=2)
    written, _ = encode_image("png", image.pixels, icc=image.icc, cicp=image.cicp)
    assert chunks_of(written)[b"cICP"] == bytes([12, 13, 0, 1])
    assert chunks_of(written)[b"iCCP"]


def test_high_dynamic_range_stays_in_png_and_is_named_elsewhere(read):
    image = read(png((b"cICP", bytes([9, 16, 0, 1]))))
    assert image.icc is None
    written, notes = encode_image("png", image.pixels, cicp=image.cicp)
    assert (chunks_of(written)[b"cICP"], notes) == (bytes([9, 16, 0, 1]), ())
    _, notes = encode_image("tiff", image.pixels, cicp=image.cicp)
    assert notes == ("coded colour space (cICP) left out, which TIFF has not: choose png",)


@pytest.mark.parametrize(
    "bad",
    [
        (b"gAMA", bytes(4)),
        (b"gAMA", b"\0"),
        (b"cHRM", bytes(32)),
        (b"cHRM", struct.pack(">8I", *[2**31] * 8)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, *[20000] * 6)),  # one light three times
        (b"cICP", b"\1\1"),
    ],
    ids=lambda bad: bad[0].decode() + bad[1][:6].hex(),
)
def test_nonsense_states_nothing(read, bad):
    assert read(png(bad)).icc is None


def test_a_damaged_chunk_states_nothing(read):
    data = bytearray(png((b"gAMA", struct.pack(">I", 100_000))))
    data[data.index(b"gAMA") + 4] ^= 1
    assert read(bytes(data)).icc is None


def exif_block(colour_space: int, index: str | None = None) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    photo = exif.get_ifd(0x8769)
    photo[0xA001] = colour_space
    if index:
        photo[0xA005] = {1: index}
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("space", "index"), [(2, None), (0xFFFF, "R03")])
def test_adobe_rgb_that_exif_states_is_kept(read, encode, kind, space, index):
    image = read(encode(COLOURS, kind, exif=exif_block(space, index).tobytes()))
    assert image.icc == profile_of(ADOBE_RGB, 3)
    reference = seen(image.pixels, imagecodecs.cms_profile("adobergb"))
    np.testing.assert_allclose(seen(image.pixels, image.icc), reference, atol=1)
    assert image.icc_source == "EXIF (Adobe RGB)"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_srgb_that_exif_states_is_kept(read, encode, kind):
    assert is_plain_srgb(read(encode(COLOURS, kind, exif=exif_block(1).tobytes())).icc, 3)
    assert read(encode(COLOURS, kind, exif=exif_block(0xFFFF).tobytes())).icc is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_that_tiff_tags_state_are_kept(read, dtype):
    stored = RAMP.astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    table = np.rint(np.linspace(0, 1, int(np.iinfo(dtype).max) + 1) ** 1.4 * 65535).astype(np.uint16)
    lights = [value for each in ADOBE[2:] for value in (each, 100_000)]
    buffer = io.BytesIO()
    tags = [
        (301, 3, 3 * len(table), np.concatenate([table] * 3), True),
        (318, 5, 2, (31270, 100_000, 32900, 100_000), True),
        (319, 5, 6, lights, True),
    ]
    tifffile.imwrite(buffer, stored, photometric="rgb", extratags=tags)
    image = read(buffer.getvalue())
    light = light_in_srgb((RAMP / 255) ** 1.4, tuple(value / 1e5 for value in ADOBE[2:]))
    inside = ((light > 0.002) & (light < 1)).all(axis=2)
    np.testing.assert_allclose(seen(RAMP.astype(np.uint8), image.icc)[inside], as_srgb(light[inside]), atol=2)
    assert image.icc_source == "TIFF tags (chromaticities, white point, transfer function)"


def bitmap(kind: int, *, lights: bytes = bytes(36), gammas: bytes = bytes(12), profile: bytes = b"") -> bytes:
    pixels = np.zeros((18, -(-54 * 3 // 4) * 4), np.uint8)
    pixels[:, : 54 * 3] = RAMP[::-1, :, ::-1].reshape(18, -1)
    start = 14 + 124 + len(profile)
    header = struct.pack("<IiiHHIIiiII", 124, 54, 18, 1, 24, 0, pixels.size, 0, 0, 0, 0) + bytes(16)
    header += struct.pack("<I", kind) + lights + gammas
    header += struct.pack("<IIII", 4, 124 if profile else 0, len(profile), 0)
    return b"BM" + struct.pack("<IHHI", start + pixels.size, 0, 0, start) + header + profile + pixels.tobytes()


def test_a_bitmap_keeps_the_colours_that_its_header_states(read):
    chromaticities = np.array(ADOBE[2:]).reshape(3, 2) / 1e5
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    lights = (columns * np.linalg.solve(columns, white)).T
    packed = struct.pack("<9i", *np.rint(lights.ravel() * 2**30).astype(int).tolist())
    image = read(bitmap(0, lights=packed, gammas=struct.pack("<3I", *[round(563 / 256 * 65536)] * 3)))
    np.testing.assert_array_equal(image.pixels, RAMP)
    reference = seen(image.pixels, imagecodecs.cms_profile("adobergb"))
    np.testing.assert_allclose(seen(image.pixels, image.icc), reference, atol=1)
    assert image.icc_source == "bitmap's header"


def test_a_bitmap_keeps_its_profile(read):
    profile = imagecodecs.cms_profile("adobergb")
    assert read(bitmap(0x4D424544, profile=profile)).icc == profile
    assert is_plain_srgb(read(bitmap(0x73524742)).icc, 3)
    assert read(bitmap(0)).icc is None  # calibrated, it says, and has no numbers
    linked = read(bitmap(0x4C494E4B, profile=b"c:\\x.icc\0"))
    assert linked.note == "the bitmap's colour profile is another file: not read"


def jp2_of_space(number: int) -> bytes:
    data = bytes(imagecodecs.jpeg2k_encode(RAMP.astype(np.uint8), codecformat="JP2", level=0))
    place = data.index(b"colr")
    return data[: place + 7] + struct.pack(">I", number) + data[place + 11 :]


def test_jpeg_2000_keeps_the_colour_space_that_it_names(read):
    assert is_plain_srgb(read(jp2_of_space(16)).icc, 3)
    image = read(jp2_of_space(21))
    np.testing.assert_array_equal(image.pixels, RAMP)
    assert image.icc_source == "JPEG 2000 (ROMM RGB)"
    assert (np.ptp(seen(np.full((2, 2, 3), 128, np.uint8), image.icc)[0, 0])) <= 1  # grey stays grey
    with pytest.raises(ImageError, match="has the colour space CIELAB: save it as grey, RGB or CMYK"):
        read(jp2_of_space(14))


def test_the_same_colour_space_gives_the_same_bytes_every_day():
    for channels in (1, 3):
        for space in (SRGB, ADOBE_RGB, ColourSpace(curve=1.0)):
            profile = profile_of(space, channels)
            assert profile is not None
            assert profile[24:36] == bytes.fromhex("07d0 0001 0001 0000 0000 0000")


def test_srgb_has_a_profile_for_results_of_other_channels():
    grey, colour = profile_of(SRGB, 1), profile_of(SRGB, 3)
    assert profile_for(grey, 3) == colour
    assert profile_for(colour, 1) == grey
    assert profile_for(profile_of(ADOBE_RGB, 3), 1) is None
    assert profile_for(None, 3) is None
