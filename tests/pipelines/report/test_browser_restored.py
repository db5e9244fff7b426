"""The page of restored images in a real browser."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

NAMES = [f"camera_one/2026-11-30/inspection_of_a_part_that_has_a_long_name_{i}.png" for i in range(3)]


def test_restored_files_are_in_a_table_by_error_bar(make, show) -> None:
    page = show(make.restored(NAMES))
    assert page.title() == "3 images restored, 1 file failed – Kintsugi"
    names = page.locator("#table tbody td.name").evaluate_all("cells => cells.map(cell => cell.title)")
    assert names == [*NAMES, "broken.png"]
    assert page.locator("#table th[aria-sort=descending]").inner_text() == "Error bar levels"
    assert page.locator("#table tbody .badge").all_inner_texts() == ["restored"] * 3 + ["failed"]
    assert "PSNR dB" in page.locator("#table thead").inner_text()
    assert "Score" not in page.locator("#table thead").inner_text()
    page.locator("#table-verdict").select_option("failed")
    assert page.locator("#table-status").inner_text() == "1 of 4 files"
    page.locator("#table-verdict").select_option("all")
    page.get_by_role("button", name="Written to").click()
    cells = page.locator("#table tbody td.name").evaluate_all("cells => cells.map(cell => cell.title)")
    assert cells == ["broken.png", *NAMES]


def test_pairs_have_their_figures_and_a_row_leads_to_them(make, show) -> None:
    page = show(make.restored(NAMES))
    assert page.locator(".pair").count() == 2
    assert page.locator(".pair").first.locator(".pair-fact").all_inner_texts() == ["error bar 3.00 levels"]
    page.locator("#show-errors").check()
    assert page.locator(".pair .errors").first.is_visible()
    page.locator("#table .open").nth(1).click()
    box = page.locator(".pair").nth(1).bounding_box()
    assert box
    assert 0 <= box["y"] < 900


@pytest.mark.parametrize("width", [700, 1000])
def test_a_note_beside_a_long_name_is_in_view(make, show, width: int) -> None:
    page = show(make.restored(NAMES, note="a tag was left out"), viewport={"width": width, "height": 900})
    note = page.locator("#table .note").first
    cell = page.locator("#table td.name").first.bounding_box()
    box = note.bounding_box()
    assert box
    assert cell
    assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    note.focus()
    assert page.locator("#tip").inner_text() == "a tag was left out"
