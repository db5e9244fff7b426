"""The page in a real browser, opened from a file as its readers open it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines.anomaly.calibration import Calibration
from pipelines.report import results_page, words, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text().replace("\N{NO-BREAK SPACE}", " ")


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def names(page: Page) -> list[str]:
    """File names of the table's rows in view."""
    return page.locator("#table tbody td.name").evaluate_all("cells => cells.map(cell => cell.title)")


def counts(page: Page) -> tuple[int, int]:
    """Normal and abnormal, as the cards show them."""
    return tuple(int(page.locator(f"#count-{kind}").inner_text().replace(",", "")) for kind in ("normal", "abnormal"))


def threshold(page: Page) -> float:
    return float(page.locator("#threshold").get_attribute("aria-valuenow") or "nan")


def drag_to(page: Page, score: float) -> None:
    """Drag the golden line to where a score lies on the axis."""
    handle = page.locator("#threshold")
    # Home and End bring the line to the lowest threshold that it can have and to the axis' end: two known places.
    handle.press("End")
    right, known_right = handle.bounding_box(), threshold(page)
    handle.press("Home")
    left, known_left = handle.bounding_box(), threshold(page)
    assert left
    assert right
    x = left["x"] + (score - known_left) / (known_right - known_left) * (right["x"] - left["x"]) + left["width"] / 2
    page.mouse.move(left["x"] + left["width"] / 2, left["y"] + 40)
    page.mouse.down()
    page.mouse.move((left["x"] + x) / 2, left["y"] + 60, steps=3)
    page.mouse.move(x, left["y"] + 60, steps=3)
    page.mouse.up()


def test_the_page_opens(make, show) -> None:
    page = show(make.folder(evaluation=make.evaluation))
    assert page.title().startswith("3 of 10 images look abnormal")
    assert counts(page) == (7, 3)
    assert page.locator(".tile").count() == 10
    assert page.locator("#table tbody tr[aria-rowindex]").count() == 11
    assert page.locator("#threshold-value").inner_text() == "0.9900"
    assert page.locator("#threshold-option").inner_text() == "--false-alarms 0.01"
    assert page.locator("#evaluation .roc-line").count() == 1
    widths = page.locator(".tile img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [64] * 20


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}])
def test_the_page_fits_dark_and_narrow_screens(make, show, options: dict[str, object]) -> None:
    page = show(make.folder(evaluation=make.evaluation), **options)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (shade < 60) == (options.get("color_scheme") == "dark")


@pytest.mark.parametrize("score", [0.21, 0.5, 0.93, 1.2, 1.4])
def test_dragging_the_threshold_changes_everything_with_it(make, show, score: float) -> None:
    page = show(make.folder())
    drag_to(page, score)
    moved = threshold(page)
    assert moved == pytest.approx(score, abs=0.02)
    abnormal = sum(value > moved for value in make.scores)
    assert counts(page) == (10 - abnormal, abnormal)
    held = np.array(make.calibration)
    assert text(page, "#threshold-rate") == f"≤ {1 + int(np.sum(held > moved))} %"
    assert texts(page, ".tile .badge").count("abnormal") == abnormal
    assert texts(page, "#table tbody .badge").count("abnormal") == abnormal
    page.locator("#table-verdict").select_option("abnormal")
    assert len(names(page)) == abnormal
    page.locator("#gallery-flagged").click()
    assert page.locator(".tile").count() == abnormal
    page.locator("#threshold-reset").click()
    assert (threshold(page), counts(page)) == (make.threshold, (7, 3))
    assert len(names(page)) == 3
    assert page.locator(".tile").count() == 3


def test_the_option_shown_gives_the_verdicts_shown(make, show) -> None:
    """Every threshold up to the highest calibration score is one that the command line can be asked for."""
    rng = np.random.default_rng(3)
    held = np.sort(np.round(rng.gamma(9, 0.1, 52), 2))  # with ties
    rows = make.rows(rng.gamma(10, 0.1, 60).tolist(), threshold=float(held[-1]))
    facts = {"n": 52, "false_alarms": 0.02, "threshold": float(held[-1]), "scores": held.tolist()}
    page = show(make.folder(rows, run=make.run(rows, calibration=facts), gallery=False))
    calibration = Calibration(model_sha256="ab" * 32, scores=tuple(held.tolist()), map_quantiles={})
    handle = page.locator("#threshold")
    seen = []
    for _ in range(len(np.unique(held)) - 1):
        handle.press("ArrowLeft")
        moved = threshold(page)
        seen.append(moved)
        alpha = float(text(page, "#threshold-option").removeprefix("--false-alarms "))
        assert calibration.threshold(alpha) == moved
        assert counts(page)[1] == sum(row["score"] > moved for row in rows)
    assert seen == np.unique(held)[::-1][1:].tolist()
    handle.press("ArrowRight")
    assert threshold(page) == seen[-2]


def test_the_threshold_of_a_cross_calibration_is_asked_not_promised(make, show) -> None:
    rows = make.rows(make.scores)
    run = make.run(rows)
    run["calibration"] |= {"kind": "cross", "folds": 5}
    page = show(make.folder(rows, run=run))
    assert text(page, "#threshold-rate") == "1 %"
    assert "put the threshold for 1 % false alarms, as asked." in text(page, "#threshold-note")
    page.locator("#threshold").press("ArrowRight")
    assert "1 % is the smallest rate that can be asked" in text(page, "#threshold-note")
    assert "promise" not in page.locator("body").inner_text().lower()


def test_above_every_calibration_score_nothing_is_promised(make, show) -> None:
    page = show(make.folder())
    page.locator("#threshold").press("ArrowRight")
    assert threshold(page) > make.threshold
    assert page.locator("#threshold-option").inner_text() == "none"
    assert "1 % is the smallest rate that can be promised" in text(page, "#threshold-note")
    page.locator("#threshold").press("End")
    assert counts(page)[1] == 0
    page.locator("#threshold").press("ArrowLeft")
    page.locator("#threshold").press("Shift+ArrowLeft")
    page.locator("#threshold").press("PageUp")
    assert threshold(page) >= make.threshold


def test_the_exploring_bar_shows_while_the_panel_is_out_of_sight(make, show) -> None:
    page = show(make.folder())
    page.locator("#threshold").press("ArrowLeft")
    page.locator("#reproduce").scroll_into_view_if_needed()
    bar = page.locator(".exploring")
    bar.wait_for(state="visible")
    assert "Exploring: threshold 0.98" in bar.inner_text()
    bar.get_by_role("button").click()
    bar.wait_for(state="hidden")
    assert counts(page) == (7, 3)


def test_counts_stay_exact_where_the_page_holds_only_the_worst_rows(
    make, show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_page, "SHOWN_ROWS", 5)
    page = show(make.folder(make.rows(make.scores)))
    assert len(names(page)) == 5
    page.locator("#threshold").press("Home")
    moved = threshold(page)
    assert moved == 0.01
    assert counts(page) == (0, 10)
    for score in (0.4, 0.8):
        drag_to(page, score)
        assert counts(page)[1] == sum(value > threshold(page) for value in make.scores)


def test_an_auroc_below_one_half_is_left_of_the_line(make, show) -> None:
    defects = {
        "worse": {"n": 5, "image_auroc": 0.2, "image_auroc_interval": [0.1, 0.4]},
        "fine": {"n": 5, "image_auroc": 0.9},
    }
    page = show(make.folder(evaluation=make.evaluation | {"defects": defects}))
    dots = page.locator("#evaluation .bar .bar-dot").evaluate_all(
        "dots => dots.map(dot => [dot.getAttribute('cx'), dot.getAttribute('class')])"
    )
    assert dots == [["24.0", "bar-dot bar-dot-worse"], ["108.0", "bar-dot"]]
    assert page.locator("#evaluation .worse").inner_text() == "0.200"


def test_a_rate_between_two_possible_ones_is_explained(make, show) -> None:
    rows = make.rows(make.scores)
    facts = make.run(rows)["calibration"] | {"n": 18, "scores": list(make.calibration[-18:]), "false_alarms": 0.1}
    page = show(make.folder(rows, run=make.run(rows, calibration=facts)))
    assert text(page, "#threshold-rate") == "≤ 5.27 %"
    assert "steps of 5.27 %, so the next possible rate below, 5.27 %, is used" in text(page, "#threshold-note")
    page = show(make.folder(name="whole"))
    assert "next possible" not in text(page, "#threshold-note")


def test_the_script_rounds_as_the_page_does(browser: Browser) -> None:
    """Halves, what only a float puts above a whole number, and figures at the edge of another digit among them."""
    rng = np.random.default_rng(7)
    ends = [0.0, 0.07, 0.0625, 0.00125, 0.9999, 0.01, 1 / 19, 6.25, 1234.5, 999.96, 1e-4, 4.567e-5, 0.125, 0.06250625]
    values = [*ends, *(10.0 ** rng.uniform(-7, 6, 500)).tolist(), *(rng.integers(1, 4000, 500) / 3200).tolist()]
    script = (Path(results_page.__file__).parent / "assets" / "page.js").read_text("utf-8")
    each = "[formatAsked(value), formatNumber(value), formatNumber(value, 2), formatNumber(-value, 3)]"
    page = browser.new_page()
    shown = page.evaluate(f"values => {{ {script}\n return values.map((value) => {each}); }}", values)
    page.close()
    expected = [
        [
            words.format_promise(value),
            words.format_number(value),
            words.format_number(value, 2),
            words.format_number(-value, 3),
        ]
        for value in values
    ]
    assert shown == expected


def test_gallery_order_and_opacity(make, show) -> None:
    rows = make.rows([1.5, 2.5, 0.5], names=["c.png", "a.png", "b.png"])
    page = show(make.folder(rows))
    assert texts(page, ".tile-name") == ["a.png", "c.png", "b.png"]
    page.locator("#gallery-sort").select_option("name")
    assert texts(page, ".tile-name") == ["a.png", "b.png", "c.png"]
    page.locator("#gallery-opacity").fill("25")
    heat = page.locator(".tile .heat").first
    assert heat.evaluate("node => getComputedStyle(node).opacity") == "0.25"
    page.locator(".tile").first.click()
    assert page.locator(".lightbox .opacity").input_value() == "25"


def test_lightbox_and_its_divider(make, show) -> None:
    page = show(make.folder())
    page.locator(".tile").nth(1).click()
    assert page.locator(".lightbox-title").inner_text() == "line/image_0008.png"
    page.keyboard.press("ArrowRight")
    assert page.locator(".lightbox-title").inner_text() == "line/image_0007.png"
    page.keyboard.press("Home")
    assert page.locator(".lightbox-place").inner_text() == "1 of 10"
    divider = page.get_by_role("slider", name="Divider")
    # The place takes the picture's shape when the picture is decoded, which is after it is shown.
    page.wait_for_function("document.querySelector('.compare').style.getPropertyValue('--ratio')")
    box = page.locator(".compare").bounding_box()
    assert box
    assert box["width"] / box["height"] == pytest.approx(64 / 48, rel=0.01)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"
    clip = page.locator(".compare-after").evaluate("node => getComputedStyle(node).clipPath")
    assert clip == "inset(0px 0px 0px 25%)"
    divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "27"
    assert page.locator(".lightbox-place").inner_text() == "1 of 10"
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")


def test_a_row_opens_its_picture(make, show) -> None:
    page = show(make.folder())
    page.locator("#table").get_by_role("button", name="image_0005").click()
    assert page.locator(".lightbox-title").inner_text() == "line/image_0005.png"


def test_explanations_show_on_focus(make, show) -> None:
    page = show(make.folder())
    page.locator(".term", has_text="score").first.focus()
    assert "Higher = more abnormal" in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_hostile_names_are_inert(make, show) -> None:
    hostile = [
        "<script>alert(1)</script>.png",
        "</script><script>alert(2)</script>.png",
        "\"'><img src=x onerror=alert(3)>.png",
        "javascript:alert(4)/\u2028\u2029\u202egnp.exe",
        "${alert(5)}`{{7*7}}{% raw %}.png",
        "__proto__/constructor.png",
    ]
    rows = make.rows([2.0 + i for i in range(6)], names=hostile, failed=[(f"x{name}", name) for name in hostile])
    run = make.run(rows, folder=hostile[0], warnings=hostile)
    run["model"]["card"] = "\n\n".join(hostile)
    run["model"]["metadata"] = dict.fromkeys(hostile, hostile[2])
    evaluation = make.evaluation | {"defects": {name: {"n": 1} for name in hostile}}
    page = show(make.folder(rows, run=run, evaluation=evaluation))
    blocks = page.locator("script").evaluate_all("nodes => nodes.map(node => node.id)")
    assert blocks == ["data-rows", "data-histogram", "data-threshold", "data-gallery", ""]
    for tile in range(6):
        page.locator(".tile").nth(tile).click()
        page.keyboard.press("Escape")
    page.locator("#table-search").fill("<script>")
    assert set(names(page)) == {name for name in (*hostile[:2], *(f"x{name}" for name in hostile[:2]))}
    assert page.locator("img:not(.tile img, .compare img)").count() == 0
    assert "{{7*7}}" in page.locator("#failed").inner_text()
    page.locator("#table-search").fill("u202egnp")
    assert names(page)[0].endswith("\\u2028\\u2029\\u202egnp.exe")


def test_the_policy_stops_what_gets_past(make, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(write_report(make.folder()).as_uri())
    refused = page.evaluate("""() => {
        const script = document.createElement('script');
        try { script.text = 'window.broken = 1'; document.body.append(script); } catch {}
        try { document.body.insertAdjacentHTML('beforeend', '<b id=late></b>'); } catch {}
        return [window.broken, document.getElementById('late')];
    }""")
    assert refused == [None, None]
    page.close()


def test_without_calibration(make, show) -> None:
    rows = make.rows(make.scores, calibrated=False)
    page = show(make.folder(rows, run=make.run(rows, calibration=None)))
    assert "There are no verdicts" in page.locator("#no-verdicts").inner_text()
    for absent in ("#threshold", "#count-abnormal", "#gallery-flagged", ".badge-abnormal"):
        assert page.locator(absent).count() == 0
    assert page.locator(".tile").count() == 10
    assert page.locator("#histogram rect").count() > 10
    assert len(names(page)) == 10


def test_partial_folders(make, show) -> None:
    page = show(make.folder(run=None, gallery=False))
    page.locator("#threshold").press("Home")
    assert page.locator("#threshold-rate").inner_text() == "–"
    assert counts(page)[1] == 10
    only_failed = make.rows((), failed=[("a.png", "empty file")])
    page = show(make.folder(only_failed, run=None, gallery=False, name="failed"))
    assert page.locator("#table tbody .badge").inner_text() == "failed"
