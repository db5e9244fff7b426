#!/usr/bin/env python3
"""Draw the picture of the house in CONTRIBUTING.md again: floors, rooms, and which imports which.

    scripts/house.py            # writes it
    scripts/house.py --check    # ends with 1 where it is not what the imports say

The floors are those of the contract in pyproject.toml, the rest is read from the code.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # grimp looks there first
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- house: written by scripts/house.py -->\n", "<!-- end of house -->"
PACKAGES = ("flows", "pipelines", "vaecore")


def read_floors() -> list[list[str]]:
    """Return the floors of `pipelines`, from the highest: names of rooms and of verbs."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (floors,) = [each["layers"] for each in contracts if each["id"] == "floors"]
    return [[name.strip() for name in floor.split("|")] for floor in floors]


def build_graph() -> grimp.ImportGraph:
    """Read all imports of the project, those for annotations alone among them."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def room_of(module: str) -> str:
    """Return the room, or the verb, that a module belongs to.

    >>> room_of("pipelines.batch.rows"), room_of("pipelines.score"), room_of("flows.cli")
    ('batch', 'score', 'flows')
    """
    package, *names = module.split(".")
    return names[0] if package == "pipelines" and names else package


def imports_between_rooms(graph: grimp.ImportGraph) -> dict[tuple[str, str], set[str]]:
    """Return each arrow between two rooms, and the modules that it points at."""
    arrows: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if room_of(module) != room_of(imported):
                arrows[room_of(module), room_of(imported)].add(imported)
    return arrows


def find_upward(arrows: dict[tuple[str, str], set[str]], floors: list[list[str]]) -> list[tuple[str, str]]:
    """Return the arrows inside `pipelines` that do not lead to a lower floor: with none of them there is no circle."""
    level = {name: -number for number, floor in enumerate(floors) for name in floor}
    return [(one, other) for one, other in arrows if one in level and other in level and level[one] <= level[other]]


def read_summary(name: str) -> str:
    """Return the first sentence of what a room or a verb says of itself."""
    path = ROOT / "pipelines" / name
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def draw() -> str:
    """Return the picture as Markdown."""
    floors, graph = read_floors(), build_graph()
    names = [name for floor in floors for name in floor]
    arrows = imports_between_rooms(graph)
    rooms = {name for name in names if (ROOT / "pipelines" / name).is_dir()}
    lines = ["```", *(_floor(floor, rooms) for floor in floors), "```", ""]
    lines += ["| | holds | modules | imports |", "|---|---|---|---|"]
    for name in names:
        modules = sum(room_of(module) == name for module in graph.modules) - 1
        below = [other for other in names if (name, other) in arrows and other != "errors"]
        size = str(modules) if name in rooms else ""
        title = f"**{name}/**" if name in rooms else name
        lines.append(f"| {title} | {read_summary(name)} | {size} | {', '.join(below) or '-'} |")
    inside = [arrow for arrow in arrows if set(arrow) <= rooms]
    upward = find_upward(arrows, floors)
    lines += ["", f"{len(rooms)} rooms, {len(inside)} arrows between rooms, {len(upward)} of all arrows not downwards."]
    return "\n".join(lines) + "\n"


def _floor(floor: list[str], rooms: set[str]) -> str:
    return "   ".join(f"{name}/" if name in rooms else name for name in floor)


def main() -> None:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description="Draw the picture of the house in CONTRIBUTING.md again.")
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    check = parser.parse_args().check
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(START)
    current = f"{before}{START}\n{draw()}\n{END}{rest.partition(END)[2]}"
    if check and current != text:
        sys.exit("CONTRIBUTING.md shows another house than the imports: run scripts/house.py")
    if not check:
        PAGE.write_text(current, "utf-8")


if __name__ == "__main__":
    main()
