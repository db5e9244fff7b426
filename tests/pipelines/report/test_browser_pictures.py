"""Pictures in a browser: outlines where the regions are, good images beside the abnormal, groups in a table."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser


def test_abnormal_images_show_outline_words_and_good_images(make, show) -> None:
    page = show(make.pictured([["line/good <1>.png", "b.png", "c.png"]] * 12))
    wide = page.locator(".tile-abnormal")
    assert wide.count() == 11  # those above the threshold, from 2.0 down by 0.1
    first = wide.first
    assert first.locator(".outlines").is_visible()
    line = first.locator(".outline-line").bounding_box()
    photo = first.locator(".tile-picture img").first.bounding_box()
    assert line
    assert photo
    scale = min(photo["width"] / 64, photo["height"] / 48)  # the picture is fitted into its place
    assert line["width"] == pytest.approx(30 * scale, abs=5)
    assert "13 % of the image" in first.inner_text().replace("\u00a0", " ")
    assert first.locator(".near-name").all_inner_texts() == ["good <1>.png", "b.png", "c.png"]
    page.locator("#threshold").press("End")  # nothing is abnormal any more
    assert wide.count() == 0
    assert page.locator(".outlines").first.is_hidden()
    page.locator("#threshold-reset").click()
    first.click()
    assert page.locator(".lightbox .near-name").all_inner_texts() == ["good <1>.png", "b.png", "c.png"]
    assert page.locator(".lightbox .compare .outlines").is_visible()
    assert "more unusual than all" in page.locator(".lightbox-foot").inner_text()
    assert page.locator("#scale").inner_text().count("1 in ") == 3


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_wide_tiles_fit_the_page(make, show, width: int) -> None:
    page = show(make.pictured([["a-long-name-" * 12 + ".png", "b.png"]] * 3))
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for tile in page.locator(".tile").all():
        box, pictures = tile.bounding_box(), tile.locator(".near-picture").last.bounding_box()
        if pictures is not None:
            assert box
            assert pictures["x"] + pictures["width"] <= box["x"] + box["width"]


def test_thresholds_of_groups_are_listed_and_none_can_be_moved(make, show) -> None:
    rows = make.rows(make.scores)
    for i, row in enumerate(rows):
        row["threshold"] = make.threshold - 0.5 * (i % 2)
        row["is_anomaly"] = row["score"] > row["threshold"]
    names = ["<b>", "a", ""]
    groups = [{"name": name, "n": 40, "threshold": 0.4 if name == "a" else None, "images": 5} for name in names]
    facts = make.run(rows)["calibration"] | {"grouped": {"needed": 99, "groups": groups}}
    page = show(make.folder(rows, run=make.run(rows, calibration=facts)))
    assert page.locator("#threshold").count() == 0
    flagged = sum(row["is_anomaly"] for row in rows)
    assert page.locator("#count-abnormal").inner_text() == str(flagged)
    assert page.locator(".tile .badge-abnormal").count() == flagged
    page.locator("#gallery-flagged").click()
    assert page.locator(".tile").count() == flagged
    table = page.locator("#groups table").inner_text()
    assert "<b>" in table
    assert "(none)" in table
    assert "its own images" in table


@pytest.mark.parametrize("thresholds", [1, 2])
def test_the_histogram_shows_a_threshold_that_all_groups_have(make, show, thresholds: int) -> None:
    rows = make.rows(make.scores)
    for i, row in enumerate(rows):
        row["threshold"] = make.threshold - 0.5 * (i % thresholds)
        row["is_anomaly"] = row["score"] > row["threshold"]
    judged = {"n": 99, "threshold": make.threshold}
    groups = [{"name": "cam1", "n": 0, "threshold": None, "images": 5, "judged_by": judged, "promised": False}]
    facts = make.run(rows)["calibration"] | {"grouped": {"needed": 99, "groups": groups, "unpromised": len(rows)}}
    page = show(make.folder(rows, run=make.run(rows, calibration=facts)))
    is_common = thresholds == 1
    assert page.locator("#threshold").count() == 0
    assert page.locator("#histogram .threshold-line").count() == is_common
    assert page.locator("#histogram .bars-abnormal").count() == is_common
    legend = page.locator("#distribution .legend").inner_text()
    assert ("abnormal images" in legend) == ("threshold" in legend) == is_common
