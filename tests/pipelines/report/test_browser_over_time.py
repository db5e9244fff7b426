"""A page over time in a real browser: nothing is refused or loaded, and runs are reached by mouse and keyboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from pipelines.report import write_history, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
FOLDERS = ("plain", "a b#c?d%41", "<script>alert(1)<!--", "\"'><img src=x onerror=alert(2)>", "größe")
POINTS = ".timeline a"


@pytest.fixture
def follow(browser: Browser) -> Iterator[Page]:
    """A page whose links may be followed: `show` takes another page for something that was loaded."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture
def history(make) -> Callable[..., Path]:
    """The page of runs in folders of these names, a day apart; each has a report."""

    def made(names: tuple[str, ...] = FOLDERS, model: str = "tiles") -> Path:
        for day, name in enumerate(names, start=1):
            rows = make.rows(make.scores, failed=[("broken.png", "empty file")] * (day == 2))
            effect = 0.9 if day == 3 else 0.5
            drift = {"p_value": 1e-9 if day == 3 else 0.5, "drifted": day == 3, "moved": "detail", "effect": effect}
            run = make.run(rows, drift=drift, started=f"2026-11-{day:02d}T02:00:00+00:00", alarms=[model] * (day == 4))
            run["model"] |= {"name": model, "version": 3 + (day > 3)}
            write_report(make.folder(rows, run=run, gallery=False, name=f"out/{name}"))
        return write_history(make.root / "out")[0]

    return made


def test_every_point_and_row_leads_to_its_report(history, follow: Page) -> None:
    page = follow
    page.goto(history().as_uri())
    assert page.locator(".timeline").count() == 5
    for chart in page.locator("section:has(.timeline)").all():
        links = chart.locator(POINTS).evaluate_all("links => links.map(link => link.href.baseVal)")
        assert [unquote(link) for link in links] == [f"{name}/report.html" for name in FOLDERS]
    for place, name in enumerate(reversed(FOLDERS)):
        page.locator("#runs tbody a").nth(place).click()
        page.locator("#files").wait_for()
        assert Path(unquote(page.url.removeprefix("file://"))).parent.name == name
        page.go_back()


def test_a_run_is_told_on_hover_and_by_the_keyboard(history, follow: Page) -> None:
    page = follow
    page.goto(history().as_uri())
    page.locator("#rates a").nth(1).hover()
    assert page.locator("#tip").inner_text().startswith("2026-11-02 02:00 UTC, version 3: 3 of 10 images flagged")
    points = page.locator("#drift a")
    assert points.evaluate_all("links => links.map(link => link.tabIndex)") == [-1, -1, -1, -1, 0]
    points.last.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "version 3: drift: detail higher" in page.locator("#tip").inner_text()
    assert "detail higher" in (page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert points.evaluate_all("links => links.map(link => link.tabIndex)") == [-1, -1, 0, -1, -1]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.href.baseVal") == "plain/report.html"
    page.keyboard.press("Enter")
    page.locator("#files").wait_for()


def test_figures_are_drawn_where_they_are(history, show) -> None:
    page = show(history())
    dots = page.locator("#drift .timeline path.dots")
    box, plot = dots.bounding_box(), page.locator("#drift .band").nth(2).bounding_box()
    assert box
    assert plot
    assert box["y"] + box["height"] / 2 == pytest.approx(plot["y"] + plot["height"] * (1.08 - 0.9) / 1.16, abs=1)
    assert box["x"] + box["width"] / 2 == pytest.approx(plot["x"] + plot["width"] / 2, abs=1)
    colours = page.locator("#rates path").evaluate_all("paths => paths.map(path => getComputedStyle(path).stroke)")
    assert len(set(colours)) >= 4


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}])
def test_the_page_fits_dark_and_narrow_screens(history, show, options: dict[str, object]) -> None:
    page = show(history(), **options)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (shade < 60) == (options.get("color_scheme") == "dark")
    if "viewport" in options:
        box = page.locator("#rates .timeline").bounding_box()
        assert box
        for part in (page.locator("#rates a").last, page.locator("#rates .scale text").first):
            place = part.bounding_box()
            assert place
            assert place["x"] >= box["x"] - 2
            assert place["x"] + place["width"] <= box["x"] + box["width"] + 2


def test_hostile_names_are_inert(history, show) -> None:
    hostile = "</script><script>alert(3)</script>\"'><img src=x onerror=alert(4)>"
    page = show(history(model=hostile))
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0
    assert hostile in page.locator("header").inner_text()
    assert hostile in page.locator("#runs").inner_text()
    assert page.title().startswith(hostile)


def test_without_a_script_the_page_says_the_same(history, browser) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(history().as_uri())
    assert page.locator("#rates a title").first.text_content().startswith("2026-11-01 02:00 UTC, version 3")
    assert page.locator("noscript").count() == 0
    page.close()


def test_the_link_of_a_report_leads_to_the_page(history, make, follow: Page) -> None:
    page_of_all = history(("one",))
    run = json.loads((make.root / "out" / "one" / "run.json").read_text())
    (make.root / "out" / "one" / "run.json").write_text(json.dumps(run | {"history": f"../{page_of_all.name}"}))
    page = follow
    page.goto(write_report(make.root / "out" / "one").as_uri())
    page.get_by_role("link", name="All runs of tiles").click()
    page.locator("#runs").wait_for()
    assert page.locator("h1").inner_text().startswith("The only run so far: 3 of 10 images flagged")
