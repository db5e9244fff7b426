"""What is answered before anything heavy is imported."""

from __future__ import annotations

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.preflight import EXTRAS, MissingPackageError, missing_package, require


def test_every_package_of_the_extras_is_known_by_the_name_it_is_imported_by() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    imported = {
        (canonicalize_name(distribution), name)
        for name, distributions in packages_distributions().items()
        for distribution in distributions
    }
    for extra, (known, _) in EXTRAS.items():
        for line in project["optional-dependencies"][extra]:
            names = {name for owner, name in imported if owner == canonicalize_name(Requirement(line).name)}
            # Libraries of the graphics card are not imported, but found by ONNX Runtime.
            assert names & known or line.startswith("nvidia-"), line


def test_what_is_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch", "mlflow", "prefect")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        MissingPackageError, match=r"^prefect is not installed: schedules cannot .*'kintsugi-images\[flows\]'"
    ):
        require("prefect")
    with pytest.raises(
        MissingPackageError, match=r"^torch and mlflow are .*but not train .*'kintsugi-images\[train,registry\]'"
    ):
        require("torch", "mlflow")
    with pytest.raises(MissingPackageError, match=r"^torch, mlflow and prefect are not installed"):
        require("torch", "mlflow", "prefect")


@pytest.mark.parametrize(
    ("name", "told"),
    [("torch", True), ("timm", True), ("pipelines.nothing", False), ("torch.nothing", False), (None, False)],
)
def test_only_a_missing_extra_is_not_a_bug(name: str | None, told: bool) -> None:
    assert bool(missing_package(ModuleNotFoundError("No module", name=name))) == told
