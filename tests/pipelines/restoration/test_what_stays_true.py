"""What is true of an image is true of what every model that ships makes of it: grey, constant, opaque, hidden."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from skimage import data

from pipelines import restore_folder
from pipelines.images import read_image
from pipelines.images.hidden import fill_hidden
from pipelines.images.image import Image
from pipelines.images.samples import Samples
from pipelines.models.reference import BUILTIN
from pipelines.models.session import (
    AnyRestoring,
    ColorizingSession,
    RestoringSession,
    SegmentingSession,
    open_restoring_session,
)
from pipelines.registry.resolve import find_model
from pipelines.restoration.channels import TINT
from pipelines.restoration.colorizer import colour_image, draw_colours
from pipelines.restoration.pictures import draw_pictures, draw_sample
from pipelines.restoration.restorer import Result, restore_image
from pipelines.restoration.segmenter import draw_labels, label_image

NAMES = sorted(path.name for path in BUILTIN.iterdir())
MENDING = [name for name in NAMES if name not in {"colorize", "segment_nuclei"}]
SIZES = [(64, 64), (37, 53), (1, 9)]
DTYPES = [np.uint8, np.uint16]


@pytest.fixture(scope="module")
def open_model() -> Callable[[str], AnyRestoring]:
    """A built-in model, loaded once."""
    loaded: dict[str, AnyRestoring] = {}

    def open_model(name: str) -> AnyRestoring:
        if name not in loaded:
            loaded[name] = open_restoring_session(find_model(f"builtin:{name}"), device="cpu", threads=1)
        return loaded[name]

    return open_model


def image_of(pixels: Samples, alpha: Samples | None = None) -> Image:
    return Image(np.ascontiguousarray(pixels), alpha, 8 * pixels.itemsize, "ab" * 32, None, None, None)


def made_by(session: AnyRestoring, image: Image, side: int | None = None) -> Result:
    match session:
        case SegmentingSession():
            return label_image(session, image, side=side)
        case ColorizingSession():
            return colour_image(session, image)
        case RestoringSession():
            return restore_image(session, image, side=side)


def dithered(height: int, width: int, dtype: type = np.uint8) -> NDArray[np.unsignedinteger]:
    """A checkerboard beside noise: what makes a network of colours see colours."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    values = np.where(x < width // 2, (x + y) % 2 * 255, noise)[..., None]
    return (values * (np.iinfo(dtype).max // 255)).astype(dtype)


def photograph(height: int = 96, width: int = 90) -> NDArray[np.uint8]:
    return data.astronaut()[20 : 20 + height, 180 : 180 + width]


def chroma_of(pixels: Samples) -> int:
    return int(np.ptp(pixels.astype(int), axis=2).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_grey_in_three_channels_is_treated_as_grey(
    open_model: Callable[[str], AnyRestoring], name: str, dtype: type, size: tuple[int, int]
) -> None:
    session, grey = open_model(name), dithered(*size, dtype)
    alone, thrice = (made_by(session, image_of(grey.repeat(count, axis=2))) for count in (1, 3))
    np.testing.assert_array_equal(thrice.pixels, np.broadcast_to(alone.pixels, thrice.pixels.shape))
    np.testing.assert_array_equal(thrice.blocks, alone.blocks)
    assert thrice.pixels.dtype == dtype or name == "segment_nuclei"


@pytest.mark.parametrize("name", MENDING)
def test_grey_files_in_colour_come_back_grey(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    grey = Picture.fromarray(dithered(40, 48)[..., 0])
    for suffix in ("png", "jpg", "tif"):
        grey.convert("RGB").save(tmp_path / "in" / f"{suffix}.{suffix}")
    grey.save(tmp_path / "in" / "grey.png")
    assert restore_folder(tmp_path / "in", f"builtin:{name}", tmp_path / "out").ok == 4
    made = {
        suffix: read_image(tmp_path / "out" / "restored" / f"{suffix}.png", max_pixels=10**6).pixels
        for suffix in ("png", "jpg", "tif", "grey")
    }
    for suffix in ("png", "jpg", "tif"):
        assert made[suffix].shape[2] == 3
        assert chroma_of(made[suffix]) == 0
    np.testing.assert_array_equal(made["png"][..., :1], made["grey"])


@pytest.mark.parametrize("name", MENDING)
def test_an_image_that_is_grey_in_places_has_no_seam(open_model: Callable[[str], AnyRestoring], name: str) -> None:
    session, pixels = open_model(name), photograph(120, 128).copy()
    pixels[:, :64] = pixels[:, :64, :1]  # all that a tile of 64 pixels keeps
    whole, tiled = (made_by(session, image_of(pixels), side).pixels.astype(int) for side in (1024, 64))
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("name", MENDING)
def test_a_tint_of_rounding_stays_as_faint(open_model: Callable[[str], AnyRestoring], name: str) -> None:
    grey = dithered(48, 48).clip(TINT, 255 - TINT)
    tint = np.random.default_rng(1).integers(-1, 2, (48, 48, 3))
    pixels = (grey + tint).astype(np.uint8)
    pixels[0, 0] = (TINT, 2 * TINT, TINT)
    assert chroma_of(made_by(open_model(name), image_of(pixels)).pixels) <= chroma_of(pixels) == TINT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("colours", [(250, 240, 60), (0, 255, 0), (128, 128, 128), (77,)])
@pytest.mark.parametrize("name", MENDING)
def test_one_colour_stays_that_colour(
    open_model: Callable[[str], AnyRestoring], name: str, colours: tuple[int, ...], dtype: type
) -> None:
    colour_of = np.array(colours, dtype) * dtype(np.iinfo(dtype).max // 255)
    made = made_by(open_model(name), image_of(np.broadcast_to(colour_of, (40, 24, len(colours)))))
    assert (made.pixels == colour_of).all()


@pytest.mark.parametrize("stains", [(1,), (0, 1), (0, 2)])
@pytest.mark.parametrize("name", MENDING)
def test_an_empty_channel_stays_empty(
    open_model: Callable[[str], AnyRestoring], name: str, stains: tuple[int, ...]
) -> None:
    pixels = np.zeros((48, 40, 3), np.uint8)
    for stain in stains:
        pixels[..., stain] = photograph(48, 40)[..., stain]
    made = made_by(open_model(name), image_of(pixels)).pixels
    for channel in range(3):
        assert made[..., channel].any() == (channel in stains)


def test_one_stain_is_mended_as_a_grey_image(open_model: Callable[[str], AnyRestoring]) -> None:
    pixels = np.zeros((48, 40, 3), np.uint8)
    pixels[..., 1] = photograph(48, 40)[..., 1]
    stained, grey = (made_by(open_model("denoise"), image_of(each)) for each in (pixels, pixels[..., 1:2]))
    np.testing.assert_array_equal(stained.pixels[..., 1:2], grey.pixels)


def disc(height: int, width: int, dtype: type = np.uint8) -> Samples:
    """How much a disc with a soft edge covers each pixel, (H, W, 1)."""
    y, x = np.mgrid[:height, :width]
    covers = np.clip(min(height, width) / 3 - np.hypot(y - height / 2, x - width / 2), 0, 1)
    return np.rint(covers * np.iinfo(dtype).max).astype(dtype)[..., None]


def write_rgba(path: Path, pixels: Samples, alpha: Samples, hidden: Samples | tuple[int, ...]) -> None:
    import imagecodecs

    pixels = np.where(alpha > 0, pixels, np.array(hidden)).astype(alpha.dtype)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.concatenate([pixels, alpha], axis=2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MENDING)
def test_one_visible_colour_stays_whatever_is_hidden(name: str, dtype: type, tmp_path: Path) -> None:
    colour_of = np.array((250, 240, 60), dtype) * dtype(np.iinfo(dtype).max // 255)
    square = np.zeros((64, 64, 1), dtype)
    square[16:48, 16:48] = np.iinfo(dtype).max
    for kind, alpha in (("square", square), ("disc", disc(64, 64, dtype))):
        write_rgba(tmp_path / "in" / f"{kind}.png", colour_of, alpha, (0, 0, 0))
    restore_folder(tmp_path / "in", f"builtin:{name}", tmp_path / "out")
    for kind in ("square", "disc"):
        made = read_image(tmp_path / "out" / "restored" / f"{kind}.png", max_pixels=10**6)
        assert made.alpha is not None
        assert (made.alpha == np.iinfo(dtype).max).any()
        assert (made.pixels == colour_of).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_changes_nothing(name: str, tmp_path: Path) -> None:
    pixels, alpha = photograph(), disc(96, 90)
    noise = np.random.default_rng(2).integers(0, 256, pixels.shape)
    hidden = {"black": (0, 0, 0), "white": (255, 255, 255), "noise": noise, "itself": pixels}
    for kind, colours in hidden.items():
        write_rgba(tmp_path / "in" / f"{kind}.png", pixels, alpha, colours)
    samples = 0 if name in MENDING else 2
    restore_folder(tmp_path / "in", f"builtin:{name}", tmp_path / "out", samples=samples)
    made = {kind: (tmp_path / "out" / "restored" / f"{kind}.png").read_bytes() for kind in hidden}
    assert len(set(made.values())) == 1


@pytest.mark.parametrize("name", MENDING)
def test_hidden_pixels_look_like_their_neighbours(
    open_model: Callable[[str], AnyRestoring], name: str, tmp_path: Path
) -> None:
    pixels, alpha = photograph(), disc(96, 90)
    write_rgba(tmp_path / "in" / "a.png", pixels, alpha, (0, 0, 0))
    restore_folder(tmp_path / "in", f"builtin:{name}", tmp_path / "out")
    made = read_image(tmp_path / "out" / "restored" / "a.png", max_pixels=10**6)
    opaque = made_by(open_model(name), image_of(pixels)).pixels
    assert made.alpha is not None
    cover = made.alpha / 255.0
    apart = np.abs(made.pixels * cover - opaque * cover)[cover[..., 0] > 0]
    black = image_of(np.where(alpha > 0, pixels, 0).astype(np.uint8))
    before = np.abs(made_by(open_model(name), black).pixels * cover - opaque * cover)[cover[..., 0] > 0]
    share = 0.6 if name == "photo" else 0.5  # it sees 208 pixels far: what is hidden moves each pixel a little
    assert apart.mean() < before.mean() * share


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MENDING)
def test_opaque_stays_opaque(open_model: Callable[[str], AnyRestoring], name: str, dtype: type) -> None:
    alpha = np.full((33, 47, 1), np.iinfo(dtype).max, dtype)
    made = made_by(open_model(name), image_of(dithered(33, 47, dtype).repeat(3, axis=2), alpha))
    assert made.alpha is not None
    assert (made.alpha == np.iinfo(dtype).max).all()
    assert made.alpha.shape[:2] == made.pixels.shape[:2]


def test_what_is_fully_transparent_is_background(open_model: Callable[[str], AnyRestoring]) -> None:
    session = open_model("segment_nuclei")
    assert isinstance(session, SegmentingSession)
    pixels = np.full((64, 64, 1), 20, np.uint8)
    pixels[24:40, 24:40] = 220
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:, 32:] = 0
    image = fill_hidden(image_of(pixels, alpha))
    made = label_image(session, image)
    assert made.labels is not None
    assert made.labels[28:36, 28:32].all()
    assert not made.labels[:, 32:].any()
    assert "fully transparent pixels are labelled background" in made.notes
    samples = list(draw_labels(session, image, 2))
    assert not any(each[:, 32:].any() for each in samples)
    pictures = draw_pictures(image.pixels, made)
    for content in (pictures["thumbnail"], pictures["restored"], draw_sample(image.pixels, made, samples[0])):
        shown = np.asarray(Picture.open(io.BytesIO(content)))
        assert shown[:, 34:].min() > 200  # a light checker: nobody sees what fills it
        assert shown[:20, :28].max() < 150


def test_colourings_of_grey_in_three_channels_are_those_of_grey(open_model: Callable[[str], AnyRestoring]) -> None:
    session, grey = open_model("colorize"), dithered(40, 48)
    assert isinstance(session, ColorizingSession)
    alone, thrice = (list(draw_colours(session, image_of(grey.repeat(count, axis=2)), 2)) for count in (1, 3))
    np.testing.assert_array_equal(alone, thrice)


def test_a_grey_jpeg_in_colour_is_grey_or_nearly() -> None:
    """What `TINT` is made for: however a grey image was stored as YCbCr, its channels are no further apart."""
    grey = Picture.fromarray(dithered(64, 64)[..., 0]).convert("RGB")
    for quality in (50, 80, 95):
        buffer = io.BytesIO()
        grey.save(buffer, "jpeg", quality=quality)
        assert chroma_of(np.asarray(Picture.open(buffer))) == 0
    off = np.array([[[128, 127, 129]], [[128, 129, 127]], [[128, 127, 127]], [[128, 129, 129]]], np.uint8)
    assert chroma_of(np.asarray(Picture.fromarray(off, "YCbCr").convert("RGB"))) <= TINT
