"""The page of several restorations side by side, in a real browser."""

from __future__ import annotations

import pytest

from pipelines.errors import FolderError
from pipelines.report import write_photographs

pytestmark = pytest.mark.browser


def test_every_picture_is_there_with_what_was_done_and_leads_to_its_report(make, show) -> None:
    out = make.restored(["a.png", "b.png"])
    page = show(write_photographs(out.parent / "photographs.html", {"Noise removed": out, "Again": out}))
    assert page.locator("h1").inner_text() == "4 photographs restored"
    names = page.locator(".pair-name").all_inner_texts()
    assert names == [f"{done}: {name}.png" for done in ("Noise removed", "Again") for name in "ab"]
    assert page.get_by_role("link", name="Noise removed").get_attribute("href") == "restored/report.html"
    page.locator("#show-errors").check()
    assert page.locator(".pair .errors").first.is_visible()


def test_a_folder_without_pictures_is_told(make) -> None:
    with pytest.raises(FolderError):
        write_photographs(make.root / "nowhere" / "x.html", {"Nothing": make.root / "nowhere"})
