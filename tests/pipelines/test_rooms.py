"""Rooms: what each face names is what others use, and nothing else."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph():
    return house.build_graph()


@pytest.fixture(scope="module")
def floors():
    return house.read_floors()


def rooms() -> list[str]:
    return sorted(
        path.parent.name for path in (ROOT / "pipelines").glob("*/__init__.py") if path.parent.name != "demo_images"
    )


def test_no_import_leads_upwards_even_for_annotations(graph, floors):
    """So there is no circle between rooms; the contract in pyproject.toml leaves annotations out."""
    assert house.find_upward(house.imports_between_rooms(graph), floors) == []


def test_no_modules_import_each_other_in_a_circle(graph):
    """`prepare` raises a CycleError that names them."""
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


@pytest.mark.parametrize("room", rooms())
def test_the_face_names_what_others_import(graph, room):
    """Modules that it does not name are the room's own business."""
    package = f"pipelines.{room}"
    opened = defaultdict(set)
    for module in graph.modules:
        if house.room_of(module) != room:
            for imported in graph.find_modules_directly_imported_by(module):
                if imported.startswith(f"{package}."):
                    opened[imported.removeprefix(f"{package}.").partition(".")[0]].add(module)
    face = importlib.import_module(package)
    assert [
        name
        for name in face.__all__
        if importlib.util.find_spec(f"{package}.{name}") is None and not hasattr(face, name)
    ] == []
    there = {path.stem for path in (ROOT / "pipelines" / room).iterdir()}
    named = {name for name in getattr(face, "__all__", ()) if name in there}
    assert set(opened) - named == set(), {name: opened[name] for name in set(opened) - named}
    assert named - set(opened) == set(), "nobody imports these: the face need not name them"
