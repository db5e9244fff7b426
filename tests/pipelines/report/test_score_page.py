from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.anomaly.drift import Drift, Moved
from pipelines.base.files import map_name
from pipelines.errors import FolderError
from pipelines.report import results_page, write_report

HOSTILE = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(2)>\u2028"


class Elements(HTMLParser):
    """The elements of a page, and the text of its JSON blocks."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.data: dict[str, Any] = {}
        self.open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open = (dict(attrs).get("id") or "code") if tag in {"script", "style"} else None

    def handle_data(self, data: str) -> None:
        if self.open is None:
            self.text += data
        elif self.open.startswith("data-"):
            self.data[self.open.removeprefix("data-")] = json.loads(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self.open = None


def report(out: Path) -> Elements:
    page = write_report(out)
    assert page == out / "report.html"
    found = Elements(page.read_text("utf-8"))
    found.text = " ".join(found.text.split()).replace("\N{NO-BREAK SPACE}", " ")
    return found


def test_a_finished_run(make) -> None:
    found = report(make.folder(evaluation=make.evaluation))
    for text in (
        "3 of 10 images look abnormal at a promised false-alarm rate of 1 %; 1 file failed",
        "/data/tiles",
        "tiles, version 3",
        "4.00 images per second",
        "truncated PNG",
        "99 held-out normal images",
        "ab" * 32,
        "kintsugi score /data/tiles --model tiles@champion --out out",
        "95 % interval 0.961 to 0.995",
        "0.2 % to 4.9 % for a promise of 1 %: within what chance allows",
        "no masks, not measured",
    ):
        assert text in found.text, text
    assert "partial" not in found.text
    assert found.data["rows"]["counts"] == [7, 3, 1, 0]
    assert len(found.data["gallery"]["pictures"]) == 10


def test_a_run_by_groups_has_no_movable_threshold_even_where_all_images_are_of_one(make) -> None:
    """Its figures would be of all calibration images, which did not judge these."""
    rows = make.rows(make.scores)
    run = make.run(rows)
    group = {"name": "line", "n": 99, "threshold": make.threshold, "images": len(rows)}
    run["calibration"] |= {"grouped": {"needed": 99, "groups": [group], "others": {"n": 99, "promised": False}}}
    found = report(make.folder(rows, run=run))
    assert found.data["threshold"] is None
    assert "Drag the golden line" not in found.text
    assert "Drag the golden line" in report(make.folder(rows, name="plain")).text


@pytest.mark.parametrize("promised", [True, False])
def test_groups_of_an_older_run_are_told_as_they_were_judged(make, promised: bool) -> None:
    rows = make.rows(make.scores)
    run = make.run(rows)
    groups = [
        {"name": name, "n": n, "threshold": threshold, "images": 5}
        for name, n, threshold in (("own", 99, make.threshold), ("few", 5, None), ("unknown", 0, None))
    ]
    grouped = {"needed": 99, "groups": groups, "others": {"n": 99, "promised": promised}}
    run["calibration"] |= {"grouped": grouped}
    text = report(make.folder(rows, run=run)).text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    assert text.count("its own images") == 1
    assert text.count("all such sub-folders' images together") == promised
    assert text.count("others' images, without a promise") == promised
    assert text.count("all images, without a promise") == 2 * (not promised)
    assert "no rate is promised for them." in text
    assert "have no p-value" not in text


def test_the_model_is_told_for_people_first_and_in_full_below(make) -> None:
    rows = make.rows(make.scores)
    run = make.run(rows)
    run["model"]["metadata"] = {
        "name": "tiles", "format": 1, "task": "reconstruct", "summary": "Learn what is normal.", "size": [96, 80],
        "data_digest": "cd" * 32, "images": {"train": 47, "calibrate": 18}, "likelihood": "gaussian", "dims": 7680,
    }  # fmt: skip
    page = write_report(make.folder(rows, run=run)).read_text("utf-8")
    model = Elements(page[page.index('<section id="model"') : page.index('<section id="reproduce"')])
    assert model.tags.count("details") == 1
    shown, folded = model.text.split("All metadata of the model file")
    assert "Working size80 × 96 pixels" in shown
    assert "Trained on47 images" in shown
    assert shown.count("Name") == 1
    assert not any(word in shown for word in ("cdcd", "Format", "Dims", "7680"))
    assert all(word in folded for word in ("cd" * 32, '"format": 1', "7680"))


@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_model_that_prefers_sharp_to_faithful_says_so_first(make, weight: float | None) -> None:
    rows = make.rows(make.scores)
    run = make.run(rows)
    run["model"]["metadata"]["adversarial"] = weight
    text = report(make.folder(rows, run=run)).text
    assert ("Its ELBO is the plain bound, but training maximised more than" in text) == (weight is not None)


CROSS = {"kind": "cross", "folds": 5, "measured": {"rate": 0.01, "images": 100, "flagged": 2}}
MEASURED = "2 of 100 good images in reserve were flagged where 1 % was asked: 2 % (95 % interval 0.24 % to 7 %)"


def test_a_split_report_says_what_is_proved(make) -> None:
    text = report(make.folder()).text
    claim = "At most 1 % of good images like the calibration images are flagged, on average over calibration sets."
    assert f"Proved{claim}" in text
    assert "Measured" not in text


def test_a_cross_report_says_what_was_asked_and_measured_and_promises_nothing(make) -> None:
    rows = make.rows(make.scores)
    group = {"name": "line", "n": 99, "threshold": 0.9, "images": 10, "represented": True, "promised": False}
    other = {"name": "new", "n": 0, "images": 2, "represented": False, "promised": False}
    judged = {"judged_by": {"n": 99, "threshold": make.threshold}}
    grouped = {
        "needed": 99, "groups": [group | judged, other | judged], "unpromised": 2,
        "others": {"n": 99, "represented": True, "promised": False},
    }  # fmt: skip
    for name, facts in {"plain": {}, "by group": {"grouped": grouped}}.items():
        run = make.run(rows)
        run["calibration"] |= CROSS | facts
        run["model"]["metadata"] |= {"adversarial": 0.3}
        out = make.folder(rows, run=run, evaluation=make.evaluation | {"calibration": CROSS}, name=name)
        found = report(out)
        assert "promise" not in out.joinpath("report.html").read_text("utf-8").lower()  # in no script either
        for text in (
            "3 of 10 images look abnormal at a requested false-alarm rate of 1 %",
            "ProvedNo rate, because this model has seen all good images: 5 other models",
            f"Measured{MEASURED}.",
            "99 normal images in folds",
            "False alarms in training 2 % 95 % interval 0.24 % to 7 %",
            "for a requested rate of 1 %, if the calibration scores were those of the deployed model: within",
            "It was asked for and is not proved",
        ):
            assert text in found.text, text
        if name == "plain":
            assert (found.data["threshold"]["proved"], found.data["threshold"]["isWhat"]) == (False, "asked")
        else:
            assert "false-alarm rate of 1 % is asked for it." in found.text
            assert "no rate is known for them" in found.text
            assert "all images, without a known rate" in found.text


def test_the_same_folder_gives_the_same_bytes(make, tmp_path: Path) -> None:
    out = make.folder(evaluation=make.evaluation)
    first = write_report(out).read_bytes()
    copy = shutil.copytree(out, tmp_path / "copy")
    assert write_report(out).read_bytes() == first
    assert write_report(copy).read_bytes() == first


def test_only_results(make) -> None:
    found = report(make.folder(run=None, gallery=False))
    assert "This report is partial. There is no run.json in this folder" in found.text
    assert "The pictures of the worst images have not been written yet." in found.text
    assert "3 of 10 images look abnormal; 1 file failed" in found.text
    assert found.data["threshold"]["n"] == 0


def test_an_unfinished_run_says_how_far_it_is(make) -> None:
    rows = make.rows(make.scores)
    run = make.run(rows, finished=None, counts={"files": 400})
    found = report(make.folder(rows, run=run))
    assert "The run has not finished: 10 of 400 files are in this report. Start the same command again" in found.text


def test_drift_is_told_once_with_its_consequence_on_top(make) -> None:
    rows = make.rows(make.scores)
    moved = Moved("brightness", 0.02, 1e-12, (0.3, 0.4, 0.5, 0.6, 0.7), (0.1, 0.12, 0.15, 0.18, 0.2))
    drift = Drift(1e-12, drifted=True, moved="brightness", effect=0.02, images=10, statistics=(moved,))
    run = make.run(rows, drift=asdict(drift), warnings=[str(drift), "another one"])
    found = report(make.folder(rows, run=run))
    assert str(drift) not in found.text
    assert (
        "Warnings of the run The images are not like the calibration images. Apart from the highest scores, images "
        "score as before, so the verdicts do not change. What has changed another one"
    ) in found.text
    assert "Darker in 98 % of comparisons." in found.text


def test_without_calibration(make) -> None:
    rows = make.rows(make.scores, calibrated=False)
    warning = "tiles/3 has no calibration: scores but no verdicts"
    found = report(make.folder(rows, run=make.run(rows, calibration=None, warnings=[warning])))
    assert "10 images scored, without verdicts" in found.text
    assert "There are no verdicts in this report." in found.text
    assert f"Warning of the run {warning}" in found.text
    assert found.data["threshold"] is None
    assert "p_value" not in found.data["rows"]


def test_only_failed_files(make) -> None:
    rows = make.rows((), failed=[("a.png", "empty file"), ("b.png", "not an image")])
    found = report(make.folder(rows, run=make.run(rows), gallery=False))
    assert "No image could be scored: 2 files failed" in found.text
    assert "empty file" in found.text
    assert found.data["histogram"] is None


def test_hostile_text_stays_text(make) -> None:
    plain = report(make.folder(evaluation=make.evaluation, name="plain"))
    rows = make.rows(make.scores, names=[f"{HOSTILE}{i}.png" for i in range(10)], failed=[(HOSTILE, HOSTILE)])
    run = make.run(rows, folder=HOSTILE, command=HOSTILE, warnings=[HOSTILE], versions={HOSTILE: HOSTILE})
    run["model"] |= {"name": HOSTILE, "ref": HOSTILE, "sha256": HOSTILE, "card": f"{HOSTILE}\n\n    {HOSTILE}"}
    run["model"]["metadata"] = {HOSTILE: HOSTILE, "deep": {HOSTILE: HOSTILE}}
    run["started"] = run["finished"] = HOSTILE
    defects = {HOSTILE: {"n": 1}}
    hostile = report(make.folder(rows, run=run, evaluation=make.evaluation | {"defects": defects}, name="hostile"))
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert "img" not in hostile.tags
    assert hostile.text.count("<script>alert(1)</script>") > 10
    assert hostile.data["rows"]["names"][0].startswith("script>\"'>&<img src=x")
    assert "\u2028" not in (name := hostile.data["rows"]["names"][0])
    assert "\\u2028" in name


def test_a_map_is_named_only_where_it_is(make) -> None:
    long = f"{'a' * 240}.png"  # the heat map's name is cut
    out = make.folder(make.rows([2.0, 3.0, 1.5], names=["../../escape.png", "inside.png", long]))
    for path in (out.parent / "escape.png.png", out / "maps" / "inside.png.png", out / map_name(long)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    maps = {item["path"]: item["map"] for item in report(out).data["gallery"]["pictures"]}
    assert maps == {"inside.png": "maps/inside.png.png", "../../escape.png": None, long: map_name(long)}


def test_half_written_folders_are_refused_with_the_next_step(make) -> None:
    out = make.folder()
    (out / "results.parquet").unlink()
    with pytest.raises(FolderError, match="nothing to report on"):
        write_report(out)
    assert not (out / "report.html").exists()


def test_counts_above_each_calibration_score_are_of_all_rows(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "SHOWN_ROWS", 4)
    found = report(make.folder(make.rows(make.scores)))
    above = np.frombuffer(base64.b64decode(found.data["threshold"]["above"]), "<u4")
    held = np.frombuffer(base64.b64decode(found.data["threshold"]["calibration"]), "<f8")
    assert held[0] == make.threshold
    assert above.tolist() == [sum(score > cut for score in make.scores) for cut in held]
    assert len(found.data["rows"]["names"]) == 4
    assert "The 4 worst of 10 files" in found.text


def test_10_000_rows_fit_into_2_megabytes(make) -> None:
    out = make.large(10_000)
    page = write_report(out)
    assert page.stat().st_size < 2e6
    found = Elements(page.read_text("utf-8"))
    assert len(found.data["rows"]["names"]) == 10_000
    assert sum(found.data["histogram"]["images"]) == 10_000
    assert "counts and figures above" not in found.text


def test_more_than_10_000_rows_keep_the_worst(make) -> None:
    out = make.large(130_000)
    page = write_report(out)
    found = Elements(page.read_text("utf-8"))
    assert page.stat().st_size < 2e6
    assert len(found.data["rows"]["names"]) == 10_000
    assert re.search(r"The 10,000 worst of 130,000 files\. The counts and figures above include", found.text)
    assert sum(found.data["histogram"]["images"]) == 130_000
    flagged = int(pq.read_table(out / "results.parquet", columns=["is_anomaly"])["is_anomaly"].to_numpy().sum())
    assert found.data["rows"]["counts"][:2] == [130_000 - flagged, flagged]


def test_import_needs_neither_torch_nor_services() -> None:
    code = (
        "import sys, pipelines.report; "
        "print([name for name in ('torch', 'vaecore', 'mlflow', 'prefect', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
