"""Conditions on versions: what they find in a real registry, and what is said of mistakes."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from pipelines.errors import RegistryError
from pipelines.registry import search
from pipelines.registry.search import Condition
from pipelines.registry.store import Registry


@pytest.fixture
def filled(registry: Registry, register: Callable[..., None]) -> Registry:
    """Three versions of tiles, one of leather; tiles/2 is champion."""
    job = '{"model.target": "pixels", "train.seed": 3, "train.minutes": null}'
    for name, psnr in (("tiles", 29.5), ("tiles", 30.0), ("leather", 31.25), ("tiles", 9.0)):
        register(name, metrics={"challenger_psnr": psnr, "champion_psnr": 99.0}, tags={"job": job, "site": "it's"})
    registry.promote("tiles", 2, reason="best")
    return registry


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ((), ["leather/1", "tiles/3", "tiles/2", "tiles/1"]),
        (("name=t*",), ["tiles/3", "tiles/2", "tiles/1"]),
        (("name!=t*",), ["leather/1"]),
        (("psnr>=29.5", "name=tiles"), ["tiles/2", "tiles/1"]),
        (("psnr > 30",), ["leather/1"]),
        (("psnr<10",), ["tiles/3"]),
        (("psnr=30",), ["tiles/2"]),
        (("alias=champion",), ["tiles/2"]),
        (("alias=",), ["leather/1", "tiles/3", "tiles/1"]),
        (("model.target=pixels", "train.seed=3", "version=1"), ["leather/1", "tiles/1"]),
        (("task=reconstruct", "site=it's", "created>=1970"), []),  # a date is no number
        (("task=denoise",), []),
    ],
)
def test_versions_that_fulfil_every_condition(filled: Registry, conditions: tuple[str, ...], found: list[str]) -> None:
    assert [version.ref for version in filled.search(*conditions)] == found


def test_what_no_version_has_is_told(filled: Registry) -> None:
    with pytest.raises(RegistryError, match=r"no version has 'psnrr'; did you mean psnr\?"):
        filled.search("psnrr>=30")
    with pytest.raises(RegistryError, match=r"no version has 'train.minutes'"):  # of all jobs it is the default
        filled.search("train.minutes>1")


@pytest.mark.parametrize("text", ["", "tiles", ">=30", "=", "a b=1"])
def test_no_condition(registry: Registry, text: str) -> None:
    with pytest.raises(RegistryError, match="is not a condition: write KEY=VALUE"):
        registry.search(text)


def test_orders_are_of_numbers(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="compares numbers, and 'high' is none"):
        registry.search("psnr>=high")
    assert registry.search("psnr>=3e1") == []


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(search) == (0, 1)
    assert Condition.parse("a!=b=c") == Condition("a", "!=", "b=c")
