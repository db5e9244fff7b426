"""The page for people from a course: what it names exists, its equations can be read, its pictures are drawn."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "lectures.md"
PICTURES = ROOT / "docs" / "lectures"
SCRIPTS = ROOT / "scripts"
MAX_PICTURE = 100_000  # bytes
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = [section for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]]
NAMES = sorted(set(re.findall(r"`((?:vaecore|pipelines|flows|lectures)(?:\.\w+)+)`", TEXT)))
EQUATIONS = re.findall(r"^\$\$\n(.+?)\n\$\$$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def lectures() -> ModuleType:
    """The package that draws."""
    return importlib.import_module("lectures")


def found(dotted: str) -> object:
    """What a dotted name stands for: a module, or something inside one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            thing = getattr(thing, attribute)
        return thing
    raise ModuleNotFoundError(dotted)


def test_the_page_names_code() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_exists_in_the_file_that_it_links(name: str) -> None:
    found(name)
    linked = set(re.findall(r"\]\(\.\./([\w/.]+\.py)\)", TEXT))
    module, *_ = name.split(".")
    stem = Path(sys.modules[getattr(found(name), "__module__", name)].__file__ or "").resolve().relative_to(ROOT)
    assert module == stem.parts[1 if module == "lectures" else 0]
    assert stem.as_posix() in linked or name.endswith(".TASK"), f"{name} is in {stem}, which no link leads to"


def test_what_is_gone_is_found_out() -> None:
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        found("vaecore.bound.no_such_function")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    assert (PAGE.parent / target).is_file()


def test_headings_that_the_page_leads_to_are_there() -> None:
    anchors = {re.sub(r"[^\w -]", "", section.splitlines()[0].lower()).replace(" ", "-") for section in SECTIONS}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) == anchors


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_each_idea_has_three_lines_an_equation_code_and_a_picture(section: str) -> None:
    lines, equation = section.split("\n\n")[1:3]
    assert len(lines.splitlines()) == 3
    assert equation.startswith("$$\n")
    assert "**Code:** " in section
    assert "](lectures/" in section


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations_can_be_read(equation: str) -> None:
    """Balanced and of known commands, without what GitHub's Markdown takes away before its mathematics sees them."""
    assert not re.search(r"\\[^a-zA-Z]|\*|\\$", equation)
    # The parser that is at hand knows no operators by name, and reads fences as they are.
    plain = equation.replace(r"\lbrace", "[").replace(r"\rbrace", "]")
    MathTextParser("path").parse(f"${plain}$")


def test_pictures_are_small_and_all_of_them_are_shown_and_drawn_by_a_script() -> None:
    files = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert set(files) == {Path(target).name for target in re.findall(r"\]\((lectures/[^)]+)\)", TEXT)}
    assert {name: size for name, size in files.items() if size > MAX_PICTURE} == {}
    drawn = "".join(path.read_text(encoding="utf-8") for path in (SCRIPTS / "lectures").glob("*.py"))
    patterns = [
        re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(name)) for name in re.findall(r'setting, f?"(\w[^"]*)"', drawn)
    ]
    assert [name for name in files if not any(re.fullmatch(each + r"\.png", name) for each in patterns)] == []


@pytest.mark.parametrize("name", ["manifold", "mixture"])
def test_the_same_bytes_are_drawn_each_time(lectures: ModuleType, name: str, tmp_path: Path) -> None:
    style = importlib.import_module("lectures.style")
    module = importlib.import_module(f"lectures.{name}")
    for folder in ("first", "again"):
        module.draw(style.Setting(tmp_path / folder, tmp_path))
    first, again = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in ("first", "again"))
    assert first == again


def test_the_command_names_the_pictures_that_there_are(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "pictures.py"), "nothing", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no picture nothing: there are amortised, autoregressive, bayes" in done.stderr
    make = ["make", "--no-print-directory", "--dry-run", "pictures", "ARGS=kl"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1].endswith("scripts/pictures.py kl")


def test_cells_of_the_plane_have_equal_probability(lectures: ModuleType) -> None:
    from scipy.stats import norm

    plane = importlib.import_module("lectures.plane")
    grid = plane.grid_of_latents(4)[:, :, 0, 0].reshape(4, 4, 2).numpy()
    assert norm.cdf(grid[0, :, 0]) == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    assert norm.cdf(grid[:, 0, 1]) == pytest.approx(
        [7 / 8, 5 / 8, 3 / 8, 1 / 8]
    )  # the top of the page is the upper end


def test_labels_are_moved_apart_and_others_stay(lectures: ModuleType) -> None:
    plane = importlib.import_module("lectures.plane")
    moved = plane.apart(np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 3.0]]))
    assert np.linalg.norm(moved[0] - moved[1]) == pytest.approx(0.5, abs=0.01)
    assert moved[2].tolist() == [3.0, 3.0]
