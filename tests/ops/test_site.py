"""The documentation site builds strictly, reads nothing from a network, and lists every decision."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed: run `make setup`")
pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: run `make setup`")

import docs_site

ROOT = Path(__file__).parents[2]


def build(out: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_has_a_page_of_every_document(site: Path) -> None:
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    pages = [path.with_name("index.html" if path.name == "README.md" else f"{path.stem}.html") for path in documents]
    pages += [Path("index.html"), Path("contributing.html"), Path("changelog.html")]
    assert [page for page in pages if not (site / page).is_file()] == []


def test_pages_load_nothing_from_a_network(site: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:[^>]*>|<link\b[^>]*\bhref=\"?https?:[^>]*>"
    )
    texts = {page.relative_to(site): page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert loads.search('<script src="https://example.org/a.js"></script>')
    found = [(page, match) for page, text in texts.items() for match in loads.findall(text)]
    assert [each for each in found if 'rel="canonical"' not in each[1]] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"@import|url\(['\"]?https?:", styles)


def test_search_works_without_a_server(site: Path) -> None:
    """The index is a script beside the JSON, and the frame that takes a worker's place is loaded first."""
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")


def test_equations_are_mathml(site: Path) -> None:
    page = (site / "lectures.html").read_text(encoding="utf-8")
    equations = (ROOT / "docs" / "lectures.md").read_text(encoding="utf-8").count("\n$$\n") // 2
    assert page.count("<math") == equations > 10
    assert "$$" not in page


def test_links_into_the_sources_lead_to_pages_of_them(site: Path) -> None:
    page = (site / "lectures.html").read_text(encoding="utf-8")
    targets = re.findall(r'href="(source/[^"]+)"', page)
    assert len(targets) > 20
    assert [target for target in targets if not (site / target).is_file()] == []


def test_lost_links_anchors_and_pages_fail_the_build(tmp_path: Path) -> None:
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", *docs_site.OUTSIDE):
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "concepts" / "bound.md"
    lost = "\n[one](no-such-page.md), [two](drift.md#no-such-heading)\n"
    page.write_text(page.read_text(encoding="utf-8") + lost, encoding="utf-8")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    for word in ("no-such-page.md", "no-such-heading", "forgotten.md"):
        assert word in done.stderr


def test_code_blocks_stay_as_they_are() -> None:
    text = "a [b](c.md)\n\n```\n[b](c.md)\n```\n\n[b](c.md)"
    changed = docs_site.outside_of_code(text, lambda part: part.replace("c.md", "d.md"))
    assert changed == "a [b](d.md)\n\n```\n[b](c.md)\n```\n\n[b](d.md)"


def test_the_index_lists_every_decision(site: Path) -> None:
    page = (site / "decisions" / "index.html").read_text(encoding="utf-8")
    listed = [f"{name}.md" for name in re.findall(r'<td><a href="(\d{3}-[\w-]+)\.html">', page)]
    assert listed == sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_the_index_marks_what_is_superseded(tmp_path: Path) -> None:
    (tmp_path / "001-old.md").write_text("# 1. Old\n\nSuperseded by [decision\n2](002-new.md).\n", encoding="utf-8")
    (tmp_path / "002-new.md").write_text("# 2. New\n\nSupersedes [decision 1](001-old.md).\n", encoding="utf-8")
    assert docs_site.index_of_decisions(tmp_path)[2:] == [
        "| 1 | [Old](001-old.md) | superseded by 2 |",
        "| 2 | [New](002-new.md) |  |",
    ]
