"""Facts of images: what they are, and that each follows the change that it is named for."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import rotate

from pipelines.anomaly.image_facts import FACT_NAMES, image_facts
from pipelines.data.image_changes import add_noise, blur, cast_colour, expose


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_facts_are_shares_of_the_range_whatever_the_depth(dtype: type) -> None:
    top = np.iinfo(dtype).max
    board = (np.indices((8, 8)).sum(axis=0) % 2 * top).astype(dtype)[..., None]
    facts = image_facts(board)
    assert facts["brightness"] == pytest.approx(0.5)
    assert facts["contrast"] == pytest.approx(0.5)
    assert facts["detail"] == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (2, 3, 1), (1, 700, 3), (5, 5, 1)])
def test_every_image_has_every_fact(shape: tuple[int, ...]) -> None:
    for value in (0, 255):
        facts = image_facts(np.full(shape, value, np.uint8))
        assert tuple(sorted(facts)) == tuple(sorted(FACT_NAMES))
        assert all(np.isfinite(each) for each in facts.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(600, 531, 3), (1, 7, 1), (64, 1, 3)])
def test_facts_are_those_of_floating_point(dtype: type[np.unsignedinteger], shape: tuple[int, ...]) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, top, shape, dtype=dtype, endpoint=True)
    step = max(1, min(shape[:2]) // 256)
    some = pixels[::step, ::step] / top
    facts = image_facts(pixels)
    detail = sum(np.abs(np.diff(some, axis=axis)).mean() for axis in (0, 1) if some.shape[axis] > 1)
    expected = {"brightness": some.mean(), "contrast": some.std(), "detail": detail}
    assert {name: facts[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def picture() -> np.ndarray:
    """A bright bar on a dark ground, upright, with soft texture."""
    generator = np.random.default_rng(2)
    grey = 40 + 10 * np.sin(np.arange(300)[:, None] / 9) + np.zeros((300, 260))
    grey[:, 100:140] += 120
    return blur((grey[..., None] * [1, 1, 1] + generator.normal(size=(300, 260, 1))).astype(np.uint8), sigma=1)


def test_each_fact_follows_its_change() -> None:
    generator, usual = np.random.default_rng(3), image_facts(picture())
    brighter = image_facts(expose(picture(), factor=1.25))
    assert brighter["brightness"] > 1.2 * usual["brightness"]
    noisy = image_facts(add_noise(picture(), generator, levels=5))
    assert noisy["noise"] * 255 == pytest.approx(5 / np.sqrt(3), rel=0.1)  # of the mean of three channels
    assert usual["noise"] * 255 < 1
    assert image_facts(blur(picture(), sigma=2))["sharpness"] < usual["sharpness"]
    warm = image_facts(cast_colour(picture(), red=1.1, blue=0.9))
    assert warm["red"] > usual["red"] + 0.02
    assert warm["blue"] < usual["blue"] - 0.02
    moved = image_facts(np.roll(picture(), (0, 26), axis=(0, 1)))
    assert moved["across"] == pytest.approx(usual["across"] + 0.1, abs=0.03)
    assert image_facts(picture()[:150, :130])["side"] == pytest.approx(usual["side"] / 2)


@pytest.mark.parametrize("shape", ["upright", "flat", "cross"])
def test_turn_is_the_angle_of_edges_to_the_left(shape: str) -> None:
    bars = np.full((300, 300), 40.0)
    if shape != "flat":
        bars[40:260, 130:170] = 200
    if shape != "upright":
        bars[130:170, 40:260] = 200
    found = []
    for degrees in (0.0, 3.0, -3.0):  # scikit-image turns to the left
        turned = rotate(bars, degrees, mode="edge", order=3)
        found.append(image_facts(turned.clip(0, 255).astype(np.uint8)[..., None])["turn"])
    assert abs(found[0]) < 0.02
    assert found[1] == pytest.approx(np.sin(np.deg2rad(12)), rel=0.4)
    assert found[2] == pytest.approx(-found[1], rel=0.2)
