"""The software's own name: one constant, which pyproject.toml, the locks and the installed package agree with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pipelines.base.software import DISTRIBUTION, software_version

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_name_and_the_version_are_those_of_the_project() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert software_version() == PROJECT["version"]


def test_the_command_and_the_packages_keep_their_names() -> None:
    assert PROJECT["scripts"] == {"kintsugi": "flows.cli:main"}


def test_an_extra_that_names_others_names_the_distribution() -> None:
    """Under another name, an index would answer with somebody else's package."""
    lines = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    assert [line for line in lines if re.match(r"kintsugi", line) and not line.startswith(f"{DISTRIBUTION}[")] == []


def test_nothing_asks_for_a_distribution_called_kintsugi() -> None:
    """`kintsugi` is another project in the package index: neither its version nor its extras are ours."""
    pattern = re.compile(r"version\(['\"]kintsugi['\"]\)|kintsugi\[[a-z]|pip install ['\"]?kintsugi\b(?!-)")
    sources = [path for name in ("flows", "pipelines", "vaecore", "scripts") for path in (ROOT / name).rglob("*.py")]
    documents = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs" / "guides").glob("*.md")]
    assert len(sources) > 200
    assert [path for path in [*sources, *documents] if pattern.search(path.read_text(encoding="utf-8"))] == []
