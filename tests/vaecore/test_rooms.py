"""Rooms of vaecore: the modules that each face names are those that others import."""

from __future__ import annotations

import importlib
from pathlib import Path

import house
import pytest

VAECORE = Path(__file__).parents[2] / "vaecore"


@pytest.fixture(scope="module")
def imports() -> set[tuple[str, str]]:
    graph = house.build_graph()
    return {(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)}


@pytest.mark.parametrize("room", ["bound", "damage", "graphs", "representations"])
def test_the_face_names_the_modules_that_others_import(imports: set[tuple[str, str]], room: str) -> None:
    package = f"vaecore.{room}"
    opened = {
        other.removeprefix(f"{package}.")
        for module, other in imports
        if other.startswith(f"{package}.") and not f"{module}.".startswith(f"{package}.")
    }
    modules = {path.stem for path in (VAECORE / room).glob("*.py")}
    face = importlib.import_module(package)
    assert modules & set(face.__all__) == opened
    assert all(hasattr(face, name) for name in set(face.__all__) - modules)
