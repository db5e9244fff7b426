"""What files state beside pixels and colours, and what of it results state: read back by other libraries than ours."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.images import Image
from pipelines.images.exif import Kept
from pipelines.images.ifd import Entry
from pipelines.images.tags import PixelSize, Tags, imagej_pixel_size, ome_pixel_size
from pipelines.images.write import FileKind, encode_image
from pipelines.restoration.segmenter import encode_labels

PHOTO, GPS = 0x8769, 0x8825
KINDS: list[FileKind] = ["png", "tiff", "webp", "jpeg"]


def photograph() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x8298] = "Maker", "Model 7", "(c) somebody"
    exif[0x0132], exif[0x0112] = "2024:05:06 07:08:09", 6
    exif[0x0100], exif[0x0101] = 29, 23
    photo = exif.get_ifd(PHOTO)
    photo[0x9003], photo[0x9291] = "2024:05:06 07:08:09", "25"
    photo[0xA002], photo[0xA003], photo[0xA001] = 29, 23, 1
    photo[0x927C], photo[0x9214], photo[0xA420] = b"made for the old file", (10, 10), "an identity"
    photo[0xA20E], photo[0x8827] = 5000.0, 400
    place = exif.get_ifd(GPS)
    place[1], place[2], place[3], place[4] = "N", (48.0, 51.0, 29.5), "E", (2.0, 17.0, 40.25)
    return exif


def result_of(image: Image, kind: FileKind, scale: int = 2, *, gps: bool = True) -> bytes:
    pixels = image.pixels.repeat(scale, 0).repeat(scale, 1)
    dpi = image.dpi and (image.dpi[0] * scale, image.dpi[1] * scale)
    assert image.tags is not None
    tags = image.tags.of_result(scale, gps=gps)
    data, notes = encode_image(kind, pixels, icc=image.icc, dpi=dpi, tags=tags)
    assert notes == ()
    return data


def exif_of(data: bytes) -> PIL.Image.Exif:
    with PIL.Image.open(io.BytesIO(data)) as picture:
        exif = picture.getexif()
        exif.get_ifd(PHOTO), exif.get_ifd(GPS)
        return exif


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "MM"])
@pytest.mark.parametrize("kind", KINDS)
def test_date_place_and_maker_of_a_photograph_are_kept(read, encode, picture, source, kind):
    exif = photograph()
    exif.endian = ">" if source == "MM" else "<"
    image = read(encode(picture, "JPEG" if source == "MM" else source, exif=exif.tobytes(), dpi=(300, 150)))
    assert image.pixels.shape == (29, 23, 3)
    found = exif_of(result_of(image, kind))
    photo, place = found.get_ifd(PHOTO), found.get_ifd(GPS)
    kept = (found[0x010F], found[0x0110], found[0x8298], found[0x0132])
    assert kept == ("Maker", "Model 7", "(c) somebody", "2024:05:06 07:08:09")
    assert (photo[0x9003], photo[0x9291], photo[0x8827]) == ("2024:05:06 07:08:09", "25", 400)
    assert (place[1], tuple(map(float, place[2])), tuple(map(float, place[4]))) == ("N", (48, 51, 29.5), (2, 17, 40.25))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_of_the_old_pixels_is_written_anew_or_left_out(read, encode, picture, kind):
    data = encode(picture, "JPEG", exif=photograph(), dpi=(300, 150))
    found = exif_of(result_of(read(data), kind))
    photo = found.get_ifd(PHOTO)
    assert found.get(0x0112, 1) == 1  # the pixels are upright now
    assert (photo[0xA002], photo[0xA003]) == (46, 58)
    assert (float(found[0x011A]), float(found[0x011B]), found[0x0128]) == (300, 600, 2)
    assert photo[0xA001] == 1  # sRGB, still
    assert not photo.keys() & {0x927C, 0x9214, 0xA420, 0xA20E}
    if kind != "tiff":
        assert not found.keys() & {0x0100, 0x0101}
    assert found.get_ifd(1) == {}  # no thumbnail of the old picture


@pytest.mark.parametrize("kind", KINDS)
def test_the_place_is_left_out_where_that_is_wished(read, encode, picture, kind):
    image = read(encode(picture, "JPEG", exif=photograph()))
    data = result_of(image, kind, gps=False)
    assert GPS not in exif_of(data)
    assert exif_of(data).get_ifd(PHOTO)[0x9003] == "2024:05:06 07:08:09"
    assert struct.pack("<II", 59, 2) not in data  # 29.5 seconds
    assert struct.pack("<II", 59, 2) in result_of(image, "tiff")


def test_a_profile_makes_exif_say_that_colours_are_in_it(read, encode, picture):
    exif = photograph()
    exif.get_ifd(PHOTO)[0xA001] = 2
    assert exif_of(result_of(read(encode(picture, "JPEG", exif=exif)), "jpeg")).get_ifd(PHOTO)[0xA001] == 0xFFFF


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_states_nothing_gives_one_that_states_nothing(read, encode, picture, kind):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    found = exif_of(result_of(read(encode(picture, "JPEG", exif=exif)), kind))
    assert not found.get_ifd(PHOTO)
    assert kind == "tiff" or not dict(found)


def test_exif_that_jpeg_has_no_room_for_is_named(picture):
    words = {tag: Entry(7, 30_000, bytes(30_000)) for tag in (0x9286, 0x9287, 0x9288)}
    data, notes = encode_image("jpeg", np.asarray(picture), tags=Tags(exif=Kept(photo=words)))
    assert notes == ("EXIF left out: 90,116 bytes are more than the 65,500 of JPEG",)
    assert not exif_of(data)


def test_a_resolution_that_jpeg_has_no_room_for_is_named(picture):
    data, notes = encode_image("jpeg", np.asarray(picture), dpi=(78_000, 78_000))
    assert notes == ("resolution left out: 78,000 dots per inch are more than the 65,535 of JPEG",)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        assert "dpi" not in picture.info


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def page_of(data: bytes) -> tifffile.TiffPage:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.pages.first


def to_world(page: tifffile.TiffPage, x: float, y: float) -> tuple[float, float]:
    """Where a place of the raster, measured from the corner of the first pixel, lies in the world."""
    keys = page.tags[34735].value
    is_point = dict(zip(keys[4::4], keys[7::4], strict=True)).get(1025) == 2
    x, y = (x - 0.5, y - 0.5) if is_point else (x, y)
    if 34264 in page.tags:
        matrix = np.reshape(page.tags[34264].value, (4, 4))
        return tuple((matrix @ [x, y, 0, 1])[:2].tolist())
    i, j, _, east, north, _ = page.tags[33922].value
    across, down, _ = page.tags[33550].value
    return east + (x - i) * across, north - (y - j) * down


GEO_KEYS = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633]


@pytest.mark.parametrize("raster", [1, 2], ids=["area", "point"])
@pytest.mark.parametrize("stated", ["scale", "matrix"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_geotiff_lies_where_it_lay(read, noise16, raster, stated, byteorder, scale):
    keys = [*GEO_KEYS[:11], raster, *GEO_KEYS[12:]]
    where = [(33550, 12, 3, (10.0, 20.0, 0.0), True), (33922, 12, 6, (2.0, 3.0, 0.0, 5e5, 4.6e6, 0.0), True)]
    if stated == "matrix":
        where = [(34264, 12, 16, (10.0, 1, 0, 5e5, 2, -20, 0, 4.6e6, 0, 0, 1, 0, 0, 0, 0, 1), True)]
    tags = [*where, (34735, 3, 16, keys, True), (34737, 2, 0, "WGS 84|", True)]
    data = tiff(noise16, photometric="rgb", extratags=tags, byteorder=byteorder)
    before, after = page_of(data), page_of(result_of(read(data), "tiff", scale))
    for x, y in ((0, 0), (29, 0), (0, 23), (29, 23), (7.5, 11.25)):
        assert to_world(after, x * scale, y * scale) == pytest.approx(to_world(before, x, y), abs=1e-6)
    assert (after.tags[34735].value, after.tags[34737].value) == (tuple(keys), "WGS 84|")


def test_rational_polynomials_are_of_the_larger_picture(read, noise16):
    values = [0.0] * 92
    values[2:4], values[7:9] = (11.0, 14.0), (12.0, 15.0)
    after = page_of(
        result_of(read(tiff(noise16, photometric="rgb", extratags=[(50844, 12, 92, values, True)])), "tiff")
    )
    assert after.tags[50844].value[2:4] == (22.5, 28.5)  # the middle of a pixel lies between those of two
    assert after.tags[50844].value[7:9] == (24.0, 30.0)


def test_a_format_without_georeference_says_so(read, noise16):
    tags = [(33550, 12, 3, (10.0, 20.0, 0.0), True), (33922, 12, 6, (2.0, 3.0, 0.0, 5e5, 4.6e6, 0.0), True)]
    image = read(tiff(noise16, photometric="rgb", extratags=[*tags, (42113, 2, 0, "0", True)]))
    _, notes = encode_image("png", image.pixels, tags=image.tags)
    assert notes == (
        "GDAL's value for pixels without data (0) left out: the result's pixels are new ones",
        "georeference left out, which PNG has not: choose tiff",
    )
    turned = read(tiff(noise16, photometric="rgb", extratags=[*tags, (274, 3, 1, 6, True)]))
    assert encode_image("tiff", turned.pixels, tags=turned.tags)[1] == (
        "georeference left out: the picture was turned upright",
    )


@pytest.mark.parametrize("shape", [(23, 29), (23, 29, 3)])
@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_the_pixel_size_of_ome_is_kept(read, shape, kind):
    sizes = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.65, "PhysicalSizeYUnit": "µm"}
    axes = "YXS" if len(shape) == 3 else "YX"
    data = tiff(np.zeros(shape, np.uint8), ome=True, metadata={"axes": axes} | sizes)
    image = read(data)
    result = result_of(image, kind, 4)
    if kind == "tiff":
        with tifffile.TiffFile(io.BytesIO(result)) as file:
            assert file.is_ome
            assert 'PhysicalSizeX="0.08125"' in file.ome_metadata
            assert 'PhysicalSizeY="0.1625"' in file.ome_metadata
            assert f'SizeX="{29 * 4}"' in file.ome_metadata
            assert file.series[0].shape == (92, 116, *shape[2:])
            assert result == result_of(image, kind, 4)  # the same every time
    assert read(result).dpi == pytest.approx((25_400 / 0.08125, 25_400 / 0.1625), rel=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_pixel_size_of_imagej_is_kept(read, dtype):
    array = np.zeros((23, 29), dtype)
    data = tiff(array, imagej=True, resolution=(3.0769, 2.0), metadata={"unit": "micron"})
    result = result_of(read(data), "tiff", 4)
    page = page_of(result)
    with tifffile.TiffFile(io.BytesIO(result)) as file:
        assert file.imagej_metadata["unit"] == "micron"
    across, down = (page.tags[tag].value for tag in (282, 283))
    assert (across[0] / across[1], down[0] / down[1]) == pytest.approx((4 * 3.0769, 8.0), rel=1e-4)
    assert page.tags[296].value == 1  # units of ImageJ's own
    assert read(result_of(read(data), "png", 4)).dpi == pytest.approx((4 * 3.0769 * 25_400, 8 * 25_400), rel=1e-3)


def test_a_turned_picture_has_turned_pixels():
    tags = Tags(pixel=PixelSize(1.0, 2.0, "mm", "OME")).turned(6)
    assert tags.pixel == PixelSize(2.0, 1.0, "mm", "OME")


@pytest.mark.parametrize(
    "description",
    [
        "<OME><Pixels/></OME>",
        *(f'<Pixels PhysicalSizeX="{x}" PhysicalSizeY="1">' for x in ("0", "a", "inf", "nan", "1e-12", "1e12")),
        '<Pixels PhysicalSizeX="1" PhysicalSizeY="nan">',
    ],
)
def test_ome_without_a_size_states_none(description):
    assert ome_pixel_size(description) is None


def test_imagej_without_a_unit_states_none():
    assert imagej_pixel_size("ImageJ=1.53t\nimages=1", (3.0, 3.0)) is None
    assert imagej_pixel_size("ImageJ=1.53t\nunit=micron", None) is None


def test_descriptions_by_programs_are_not_taken_for_words(read, noise16):
    assert read(tiff(noise16, photometric="rgb", metadata={"a": 1})).tags.exif.main.keys() == {0x0131}
    words = read(tiff(noise16, photometric="rgb", description="a scan of 1912", metadata=None))
    assert page_of(result_of(words, "tiff")).description == "a scan of 1912"


@pytest.mark.parametrize("length", range(0, 400, 23))
def test_a_cut_block_keeps_what_is_whole(read, encode, picture, length):
    block = photograph().tobytes()[6:]
    data = encode(picture, "PNG")
    image = read(data[:33] + chunk(b"eXIf", block[:length]) + data[33:])
    assert exif_of(result_of(image, "jpeg")) is not None


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def test_labels_keep_place_and_size(read, noise16):
    tags = [(33550, 12, 3, (10.0, 20.0, 0.0), True), (33922, 12, 6, (2.0, 3.0, 0.0, 5e5, 4.6e6, 0.0), True)]
    image = read(tiff(noise16, photometric="rgb", extratags=tags))
    labels = (noise16[..., 0] % 5).astype(np.uint8)
    for classes in (2, 5):
        data, _ = encode_labels("tiff", labels % classes, classes, None, image.tags)
        assert page_of(data).tags[33922].value[3:5] == (5e5, 4.6e6)
    with PIL.Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "P"
        np.testing.assert_array_equal(np.asarray(stored), labels)
    with PIL.Image.open(io.BytesIO(encode_labels("png", labels, 5, (300, 300))[0])) as stored:
        assert stored.mode == "P"
        assert stored.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
        np.testing.assert_array_equal(np.asarray(stored), labels)
