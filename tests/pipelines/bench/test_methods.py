"""Which rows the command line asks for, and which settings hold for which row."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from pipelines.bench import jobs
from pipelines.bench.jobs import check_overrides, for_pixels, overrides_for
from pipelines.bench.methods import DEFAULT, METHODS, choose_methods, method_of
from pipelines.errors import JobError


def test_a_family_is_all_its_rows_and_a_row_is_one() -> None:
    assert [method.name for method in choose_methods(["padim", "ours", "padim"])] == ["padim", "padim_16", "ours"]
    assert [method.name for method in choose_methods(["padim_16"])] == ["padim_16"]
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert {"patchcore_16", "pixel_vae"} <= {method.name for method in choose_methods(DEFAULT)}


def test_an_unknown_method_is_named_with_those_that_there_are() -> None:
    with pytest.raises(JobError, match=r"there is no method 'patchcor'; there are: ours, patchcore, padim"):
        choose_methods(["ours", "patchcor"])


def test_rows_on_pixels_take_no_settings_of_features_but_the_size() -> None:
    overrides = ["model.strides=[8]", "train.steps=9", "autoencoder_l2.train.steps=5", "pixel_vae.model.size=96"]
    pixel_vae = for_pixels(method_of("pixel_vae"), overrides, (256, 224))
    assert pixel_vae == ["train.steps=9", "model.target=pixels", "model.size=[256, 224]", "model.size=96"]
    assert for_pixels(method_of("autoencoder_l2"), overrides, (64, 64))[-1] == "train.steps=5"
    assert overrides_for(method_of("knn"), overrides) == overrides[:2]
    assert overrides_for(method_of("padim_16"), ["padim.model.size=64"]) == ["model.size=64"]


def test_examples() -> None:
    assert doctest.testmod(jobs) == (0, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed=3", "--set train.seed has no place here: use --seeds"),
        ("ours.data.train=x", "--set data.train has no place here"),
        ("train.stesp=3", "did you mean 'steps'"),
        ("our.train.steps=3", "'our' is not a key"),
    ],
)
def test_mistakes_are_found_before_training(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        check_overrides([override], METHODS[:1], tmp_path, tmp_path)
