"""Decisions: a file each, numbered without gaps, with the same headings; what is superseded links its successor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
FILES = sorted(FOLDER.glob("[0-9]*.md"))
HEADINGS = ["Context", "Decision", "Alternatives", "Measured", "Consequences"]


def number_of(path: Path) -> int:
    return int(path.name[:3])


def test_numbers_have_no_gap_and_no_twin() -> None:
    """Two people may take one number: whoever merges last renames a file."""
    assert [number_of(path) for path in FILES] == list(range(1, len(FILES) + 1))
    others = {path.name for path in FOLDER.iterdir()} - {path.name for path in FILES}
    assert others == {"README.md"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_has_its_number_and_known_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{3}(-[a-z0-9]+)+\.md", path.name)
    assert re.match(rf"# {number_of(path)}\. \S.*\n\n", text)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == [name for name in HEADINGS if name in headings]
    assert "Decision" in headings
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_superseded_and_what_supersedes_it_link_each_other(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if later := re.search(r"^Superseded by \[decision\s\d+\]\(([\w.-]+)\)", text, re.MULTILINE):
        head = (FOLDER / later[1]).read_text(encoding="utf-8").partition("\n## ")[0]
        assert "Supersedes" in head
        assert path.name in head
    if "\nSupersedes " in text:
        head = text.partition("\n## ")[0]
        for earlier in re.findall(r"\(([\w-]+\.md)\)", head):
            assert path.name in (FOLDER / earlier).read_text(encoding="utf-8").partition("\n## ")[0]


def test_mentions_of_a_decision_lead_to_that_decision() -> None:
    pages = [path for path in FOLDER.parents[0].rglob("*.md") if path.name != "README.md"]
    mentions = [
        (path.name, number, target)
        for path in pages
        for number, target in re.findall(r"\[decision\s(\d+)\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    ]
    assert len(mentions) > 20
    assert [each for each in mentions if int(each[1]) != number_of(Path(each[2]))] == []
