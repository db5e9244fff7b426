"""The table of all files in a real browser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.report import results_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def names(page: Page) -> list[str]:
    """File names of the table's rows in view."""
    return page.locator("#table tbody td.name").evaluate_all("cells => cells.map(cell => cell.title)")


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def counts(page: Page) -> tuple[int, int]:
    """Normal and abnormal, as the cards show them."""
    return tuple(int(page.locator(f"#count-{kind}").inner_text().replace(",", "")) for kind in ("normal", "abnormal"))


def threshold(page: Page) -> float:
    return float(page.locator("#threshold").get_attribute("aria-valuenow") or "nan")


def test_sorting(make, show) -> None:
    page = show(make.folder())
    by_score = names(page)
    assert by_score[0] == "line/image_0009.png"
    assert by_score[-1] == "broken.png"
    page.get_by_role("button", name="Score").click()
    assert names(page) == [*by_score[:-1][::-1], "broken.png"]
    page.get_by_role("button", name="File", exact=True).click()
    assert names(page) == sorted(by_score)
    assert texts(page, "th[aria-sort=ascending]") == ["File"]
    page.get_by_role("button", name="Verdict").click()
    assert texts(page, "#table tbody .badge") == ["abnormal"] * 3 + ["normal"] * 7 + ["failed"]


def test_search_and_filter(make, show) -> None:
    page = show(make.folder())
    page.locator("#table-search").fill("IMAGE_0003")
    assert names(page) == ["line/image_0003.png"]
    page.locator("#table-search").fill("nowhere")
    assert "No file matches." in page.locator("#table tbody").inner_text()
    page.locator("#table-search").fill("")
    page.locator("#table-verdict").select_option("failed")
    assert names(page) == ["broken.png"]
    assert page.locator("#table-status").inner_text() == "1 of 11 files"


@pytest.mark.parametrize("width", [700, 1400])
def test_no_figure_of_the_table_is_cut(make, show, width: int) -> None:
    rows = make.rows(make.scores)
    for row, factor in zip(rows, (1.0, -1e7, 1e-5, -1e-5, 0.1, -0.1, 1e4, 3e7, 1.0, 1.0), strict=True):
        row |= {
            "elbo": -1234.5678 * factor,
            "rate": 1e3 * factor,
            "bits_per_dim": -0.12345,
            "width": 10_000,
            "height": 9_999,
        }
    page = show(make.folder(rows), viewport={"width": width, "height": 900})
    page.get_by_role("button", name="ELBO").click()  # the arrow of sorting takes room too
    cut = "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent)"
    assert page.locator("#table td:not(.name), #table th, #table th button").evaluate_all(cut) == []
    assert any(figure.startswith("12,345,67") for figure in texts(page, "#table td"))
    name = page.locator("#table th").first.bounding_box()
    assert name
    assert name["width"] >= 250


def test_a_table_is_as_high_as_its_rows(make, show) -> None:
    page = show(
        make.folder(make.rows((), failed=[("a.png", "empty file")]), gallery=False),
        viewport={"width": 700, "height": 900},
    )
    box = page.locator(".rows").bounding_box()
    assert box
    assert box["height"] < 120
    page = show(make.folder(make.rows(np.linspace(0, 2, 300).tolist()), gallery=False, name="many"))
    box = page.locator(".rows").bounding_box()
    assert box
    assert 400 < box["height"] <= 560


def test_printing_shows_the_head_of_the_table(make, show) -> None:
    page = show(make.folder(make.rows(np.linspace(0, 2, 300).tolist()), gallery=False))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(names(page)) == 100
    assert page.locator("#table-status").inner_text() == "The first 100 of 300 files"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(names(page)) < 60


def test_100_000_rows_stay_quick(make, show, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times what a page shows: the table is not what limits it."""
    monkeypatch.setattr(results_page, "SHOWN_ROWS", 100_000)
    out = make.large(100_000)
    scores = pq.read_table(out / "results.parquet", columns=["score"])["score"].to_numpy()
    paths = pq.read_table(out / "results.parquet", columns=["path"])["path"].to_pylist()
    started = time.perf_counter()
    page = show(out)
    assert page.locator("#table-status").inner_text() == "100,000 files"
    opened = time.perf_counter()
    assert opened - started < 60  # writing the page included; about 3 s on an idle machine
    page.locator("#table-search").fill("camera_3/part_0012")
    page.locator("#table-status", has_text="of 100,000").wait_for()
    assert page.locator("#table-status").inner_text() == (
        f"{sum('camera_3/part_0012' in path for path in paths)} of 100,000 files"
    )
    page.locator("#table-search").fill("")
    page.get_by_role("button", name="File", exact=True).click()
    assert names(page)[0] == paths[0]
    page.locator(".rows").evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.locator(f"td[title='{paths[-1]}']").wait_for()
    page.locator("#threshold").press("PageDown")
    assert counts(page)[1] == int(np.sum(scores > threshold(page)))
    assert time.perf_counter() - opened < 60
