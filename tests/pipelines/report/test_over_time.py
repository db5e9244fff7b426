"""The pages of all runs below a folder: which runs, what is said of them, and what is read again."""

from __future__ import annotations

import doctest
import errno
import json
import os
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import FolderError
from pipelines.rebuild import rebuild
from pipelines.report import (
    comparison,
    history_address,
    over_time,
    past_charts,
    past_runs,
    timeline,
    write_history,
    write_report,
)

SHIFTED = {"p_value": 1e-12, "drifted": True, "moved": "brightness", "effect": 0.02, "images": 10}
ALIKE = {"p_value": 0.6, "drifted": False, "moved": "score", "effect": 0.52, "images": 10}
HOSTILE = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(2)>\u2028"


class Page(HTMLParser):
    """What a page says, its elements, links and tips."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text("utf-8")
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.tips: list[str] = []
        self.text = ""
        self.inside: str | None = None
        self.cell = False
        self.feed(self.html)
        self.text = " ".join(self.text.split()).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        if tag == "a" and not (address := dict(attrs)["href"] or "").startswith("#"):
            self.links.append(address)
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self.cell = True
        elif tag == "title" and len(self.tags) > 20:
            self.tips.append("")

    def handle_data(self, data: str) -> None:
        if self.inside in {"script", "style"}:
            return
        self.text += data
        if self.inside == "title" and self.tips:
            self.tips[-1] += data
        elif self.cell:
            self.rows[-1][-1] += data.strip().replace("\N{NO-BREAK SPACE}", " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style", "title"}:
            self.inside = None
        self.cell &= tag not in {"td", "th"}


@pytest.fixture
def add(make) -> Callable[..., Path]:
    """Makes a run: day of November 2026, scores, and what else its run.json says."""

    def made(
        day: int, scores: tuple[float, ...] = (0.1, 0.2, 0.3, 1.5), *, failed: int = 0, name: str | None = None,
        model: str = "tiles", version: int | None = 3, **changes: Any,
    ) -> Path:  # fmt: skip
        rows = make.rows(scores, failed=[(f"z{i}.png", "empty file") for i in range(failed)])
        times = {"started": f"2026-11-{day:02d}T02:00:00+00:00", "finished": f"2026-11-{day:02d}T02:01:00+00:00"}
        run = make.run(rows, **(times | changes))
        run["model"] |= {"name": model, "version": version}
        out = make.folder(rows, run=run, gallery=False, name=f"out/{name or f'2026-11-{day:02d}T02-00-00Z-{model}'}")
        (out / "report.html").write_text("")
        return out

    return made


@pytest.fixture
def out(make) -> Path:
    return make.root / "out"


def test_each_model_has_a_page(add, out: Path) -> None:
    add(1)
    add(2, model="caps")
    add(3)
    assert write_history(out) == [out / "caps.html", out / "tiles.html"]
    page = Page(out / "tiles.html")
    assert "Runs2" in page.text
    assert "2026-11-01 to 2026-11-03" in page.text
    assert "2026-11-02" not in page.text
    assert [row[0] for row in page.rows[1:]] == ["2026-11-03 02:00 UTC", "2026-11-01 02:00 UTC"]


def test_the_same_runs_give_the_same_bytes(add, out: Path) -> None:
    add(1)
    add(2)
    (page,) = write_history(out)
    first = page.read_bytes()
    write_history(out)
    (out / past_runs.KEPT).unlink()
    write_history(out)
    assert page.read_bytes() == first


def test_figures_are_those_of_the_rows(add, out: Path) -> None:
    add(1, tuple((np.arange(1, 101) / 100).tolist()), drift=ALIKE)  # the threshold is 0.99: one is above
    add(2, (0.5, 1.5, 1.5, 2.5), failed=1, drift=SHIFTED, alarms=["3 of 4 images look abnormal"])
    page = Page(write_history(out)[0])
    assert page.rows[0] == ["Started", "Version", "Images", "Flagged", "Rate", "Failed", "Images/s", "Drift", "Alarms"]
    assert page.rows[1][1:] == ["3", "4", "3", "75 %", "1", "4.00", "brightness lower", "3 of 4 images look abnormal"]
    assert page.rows[2][1:] == ["3", "100", "1", "1 %", "0", "4.00", "no drift", ""]
    tips = "\n".join(page.tips).replace("\N{NO-BREAK SPACE}", " ")
    # By hand: Wilson for 1 of 100 is (0.01 + 0.0192 -+ 0.0262) / 1.0384.
    assert "2026-11-01 02:00 UTC, version 3: 1 of 100 images flagged, 1 % (0.18 % to 5.4 %)" in tips
    assert "3 of 4 images flagged, 75 % (30 % to 95 %). Alarm: 3 of 4 images look abnormal" in tips
    # numpy's quantiles: median of 0.01 .. 1.00 is 0.505, and 99 % of the way from the first to the last is 0.9901.
    assert "version 3: median score 0.5050, 90 % below 0.9010, 99 % below 0.9901, threshold 0.9900" in tips
    assert "version 3: median score 1.500, 90 % below 2.200, 99 % below 2.470" in tips
    assert "drift: brightness lower (p = 1e-12)" in tips
    assert "1 of 5 files failed, 20 %" in tips


def test_runs_that_mend_have_what_they_have(make, out: Path) -> None:
    for day, scale in ((1, 0.01), (2, 0.02)):
        folder = out / f"run{day}"
        folder.mkdir(parents=True)
        rows = {"path": ["a", "b", "c"], "mean_scale": [scale, 3 * scale, None], "psnr": [30.0, None, None]}
        pq.write_table(pa.table(rows), folder / "results.parquet")
        run = make.run([], verb="restore", counts={"ok": 2, "failed": 1, "files": 3}, calibration=None)
        (folder / "run.json").write_text(json.dumps(run | {"started": f"2026-11-0{day}T00:00:00+00:00"}))
    page = Page(write_history(out)[0])
    assert page.rows[0] == ["Started", "Version", "Images", "Mean error bar, levels", "PSNR, dB", "Failed", "Images/s"]
    assert page.rows[1][1:] == ["3", "2", "10.2", "30.00", "1", "4.00"]  # 0.04 * 255
    assert (
        "Last run: 2 images, mean error bar 10.2 levels (usually 5.10); 1 file failed, 33 % (usually 33 %)" in page.text
    )
    assert 'id="rates"' not in page.html
    assert 'id="error-bars"' in page.html


@pytest.mark.parametrize("unpromised", [0, 3, 4])
def test_the_rate_is_drawn_as_promised_where_it_is_promised_for_some_image(
    add, make, out: Path, unpromised: int
) -> None:
    facts = make.run(make.rows((0.1, 0.2, 0.3, 1.5)))["calibration"]
    add(1, calibration=facts | {"grouped": {"needed": 99, "unpromised": unpromised}})
    assert ("promised false-alarm rate" in Page(write_history(out)[0]).text) == (unpromised < 4)


def test_the_rate_of_a_cross_calibration_is_drawn_as_asked(add, make, out: Path) -> None:
    facts = make.run(make.rows((0.1, 0.2, 0.3, 1.5)))["calibration"]
    add(1, calibration=facts)
    add(2, calibration=facts | {"kind": "cross", "folds": 5})
    runs = [kept.run for _, kept in sorted(past_runs.find_runs(out, {})[0].items())]
    assert [(run.promised, run.asked) for run in runs] == [(0.01, None), (None, 0.01)]
    text = Page(write_history(out)[0]).text
    assert "promised false-alarm rate" in text
    assert "requested false-alarm rate" in text


def test_versions_are_marked_where_they_change(add, out: Path) -> None:
    for day, version in enumerate((3, 3, 4, 5, 5), start=1):
        add(day, version=version)
    runs = sorted(past_runs.find_runs(out, {})[0].items())
    axis = timeline.TimeAxis([kept.run.when for _, kept in runs], [kept.run.version for _, kept in runs])
    assert axis.breaks == [2, 3]
    assert [change.text for change in axis.changes] == ["3", "4", "5"]
    for change, (before, after) in zip(axis.changes[1:], ((1, 2), (2, 3)), strict=True):
        assert change.at == pytest.approx((axis.x[before] + axis.x[after]) / 2, abs=0.1)
    page = Page(write_history(out)[0])
    charts = page.tags.count("svg") - page.html.count('class="key"') - 1  # and the brand
    assert page.html.count('class="change"') == 2 * charts
    assert "Current version5" in page.text


def test_a_model_file_without_a_version_is_told_by_its_digest(add, out: Path) -> None:
    add(1, version=None)
    assert "Current versionabababab" in Page(write_history(out)[0]).text


def test_what_is_no_finished_run_is_counted_and_left_out(add, out: Path) -> None:
    add(1)
    add(2, finished=None)
    (out / "killed-early" / ".kintsugi-run").mkdir(parents=True)
    (out / "photos").mkdir()
    (out / ".hidden").mkdir()
    (out / "notes.txt").write_text("")
    (out / "loop").symlink_to("loop")
    damaged = {
        "no-json": "{", "list": "[]", "nested": "[" * 100_000, "no-model": '{"finished": "2026-11-01T00:00:00+00:00"}',
    }  # fmt: skip
    for name, text in damaged.items():
        (out / name).mkdir()
        (out / name / "run.json").write_text(text)
    (add(3) / "results.parquet").write_bytes(b"PAR1 no more")
    (add(4) / "results.parquet").unlink()
    add(5, started="yesterday")
    add(6, started="0001-01-01T00:00:00+14:00")
    add(10, started="1970-01-01T00:00:10+00:00")
    add(7, counts={"ok": 1, "failed": 0, "flagged": 2})
    add(8, counts={"ok": -1, "failed": 0, "flagged": 0})
    add(9, drift=SHIFTED | {"effect": 7.0})
    (page,) = write_history(out)
    found = Page(page)
    left_out = (
        "Left out of this page: 2 runs that have not finished, 12 runs that are damaged, 1 folder that is no run."
    )
    assert left_out in found.text
    assert [row[0] for row in found.rows[1:]] == ["2026-11-01 02:00 UTC"]


def test_a_folder_that_may_not_be_seen_stops_no_page(add, out: Path, broken: dict[str, int]) -> None:
    add(1)
    (out / "elsewhere").symlink_to(out.parent)
    broken[str(out / "elsewhere")] = errno.EACCES
    assert len(write_history(out)) == 1


def test_where_nothing_has_finished_there_is_no_page(add, out: Path) -> None:
    add(1, finished=None)
    assert write_history(out) == []
    assert list(out.glob("*.html")) == []
    with pytest.raises(FolderError, match=r"no run in the folders of .* has finished"):
        rebuild(out)
    with pytest.raises(FolderError, match="cannot be shown on history pages: No such file"):
        write_history(out / "nowhere")


def test_figures_beyond_all_reason_do_no_harm(add, out: Path) -> None:
    huge = 1e308
    add(1, (0.0, 5e-324), timings={"images_per_second": huge}, started="2199-12-31T00:00:00+00:00")
    add(2, (huge, -huge), calibration={"n": 1, "false_alarms": huge, "threshold": -huge})
    add(3, (), timings={"images_per_second": -1.0})
    add(4, counts={"ok": 10**400, "failed": 10**400, "flagged": 0})
    (page,) = write_history(out)
    found = Page(page)
    assert "1 run that is damaged" in found.text
    assert len(found.rows) == 4
    assert not {"inf", "nan"} & set(found.text.lower().split())


def test_alarms_that_are_no_sentences_are_passed_over(add, out: Path) -> None:
    add(1, alarms={"flagged": 3})
    add(2, alarms=["much", 7])
    page = Page(write_history(out)[0])
    assert [row[-1] for row in page.rows[1:]] == ["much", ""]
    assert "Alarm of the last run much" in page.text


def test_hostile_text_stays_text(add, out: Path) -> None:
    add(1, name="plain")
    plain = Page(write_history(out)[0])
    shutil.rmtree(out)
    folder = f"a b%2e#?&<script>alert(1)<{chr(0xDCFF)}"
    run = add(1, model=HOSTILE, version=HOSTILE, alarms=[HOSTILE], drift=SHIFTED | {"moved": HOSTILE}, name="run")
    run.rename(out / folder)  # Arrow writes to no such folder
    (path,) = write_history(out)
    page = Page(path)
    assert page.tags.count("script") == plain.tags.count("script")
    assert "img" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 5
    assert "\u2028" not in page.html
    assert path.parent == out
    assert set(page.links) == {"a%20b%252e%23%3F%26%3Cscript%3Ealert%281%29%3C%FF/report.html"}
    assert (out / os.fsdecode(unquote_to_bytes(page.links[0]))).is_file()
    assert history_address(HOSTILE) == f"../{path.name}"


@pytest.mark.parametrize("model", ["tiles", "..", "a/b", "a:b", "", "größe", "A" * 300, "\ud800"])
def test_every_model_has_a_file_name_of_its_own(add, out: Path, model: str) -> None:
    add(1, model=model, name="run")
    assert write_history(out) == [out / over_time.name_page(model)]
    others = {over_time.name_page(name) for name in ("a-b", "a b", "A" * 299, "model", "-")}
    assert over_time.name_page(model) not in others


def test_only_what_is_new_or_changed_is_read(add, out: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = add(1), add(2)
    read: list[str] = []
    plain = past_runs._read
    monkeypatch.setattr(past_runs, "_read", lambda folder, key: read.append(folder.name) or plain(folder, key))
    write_history(out)
    assert read == [first.name, second.name]
    write_history(out)
    third = add(3)
    page = Page(write_history(out)[0])
    assert read[2:] == [third.name]
    assert [row[3] for row in page.rows[1:]] == ["1", "1", "1"]

    # Another set of rows of the same size, a second later; then another run.json.
    rows = make.rows((1.5, 1.6, 1.7, 1.8))
    pq.write_table(pa.Table.from_pylist(rows, schema=make.schema), second / "results.parquet")
    os.utime(second / "results.parquet", (2e9, 2e9))
    page = Page(write_history(out)[0])
    assert read[3:] == [second.name]
    assert "median score 1.650" in page.html
    run = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps(run | {"counts": run["counts"] | {"flagged": 4}}))
    page = Page(write_history(out)[0])
    assert read[4:] == [first.name]
    assert [row[3] for row in page.rows[1:]] == ["1", "1", "4"]


def test_a_run_that_is_gone_is_on_no_page_and_its_model_has_none(add, out: Path) -> None:
    add(1)
    gone, alone = add(2), add(3, model="caps")
    (out / "mine.html").write_text("")
    assert len(write_history(out)) == 2
    shutil.rmtree(gone)
    shutil.rmtree(alone)
    (page,) = write_history(out)
    assert [row[0] for row in Page(page).rows[1:]] == ["2026-11-01 02:00 UTC"]
    assert sorted(path.name for path in out.glob("*.html")) == ["mine.html", "tiles.html"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"[" * 100_000, b'{"format": 0, "runs": {"x": 1}}', b'{"format": 2, "pages": ["../mine.html"]}'],
)
def test_a_kept_file_of_no_use_is_made_again(add, out: Path, content: bytes) -> None:
    add(1)
    (out / past_runs.KEPT).write_bytes(content)
    (mine := out.parent / "mine.html").write_text("")
    (page,) = write_history(out)
    assert len(Page(page).rows) == 2
    assert json.loads((out / past_runs.KEPT).read_text())["pages"] == ["tiles.html"]
    assert mine.exists()


def test_many_runs_are_all_drawn_and_the_newest_are_in_the_table(add, out: Path, monkeypatch) -> None:
    monkeypatch.setattr(over_time, "SHOWN_RUNS", 3)
    monkeypatch.setattr(over_time, "LISTED_RUNS", 5)
    for day in range(1, 8):
        add(day)
    page = Page(write_history(out)[0])
    first, folded = page.html.split("<details>")
    assert first.count('<th scope="row">') == 3
    assert folded.count('<th scope="row">') == 2
    assert "2 older runs" in page.text
    assert "2 runs before these are only in the charts." in page.text
    assert len([tip for tip in page.tips if "flagged" in tip]) == 7


def test_a_run_whose_report_is_missing_has_no_link_in_the_table(add, out: Path) -> None:
    (add(1) / "report.html").unlink()
    page = write_history(out)[0].read_text("utf-8")
    assert "<a" not in page[page.index("<tbody>") :]


def test_a_report_leads_to_the_page_of_all_runs(make) -> None:
    rows = make.rows(make.scores)
    link = '<a href="../tiles.html">All runs of tiles</a>'
    assert link in write_report(make.folder(rows, run=make.run(rows, history="../tiles.html"))).read_text("utf-8")
    plain = write_report(make.folder(rows, name="plain")).read_text("utf-8")
    assert "All runs" not in plain
    for number, bad in enumerate(("javascript:alert(1)//.html", "../../x.html", "https://x/y.html", "../a b.html", "")):
        page = write_report(make.folder(rows, run=make.run(rows, history=bad), name=f"bad{number}"))
        assert "All runs" not in page.read_text("utf-8")


def test_a_folder_of_runs_is_rebuilt_as_pages_over_time(add, out: Path) -> None:
    run = add(1)
    assert rebuild(out) == [out / "tiles.html"]
    assert rebuild(run) == [run / "report.html"]


@pytest.mark.parametrize("module", [comparison, over_time, past_charts, timeline], ids=lambda module: module.__name__)
def test_examples_in_the_documentation(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
