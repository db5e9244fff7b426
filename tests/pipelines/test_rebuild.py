"""Reports of runs that were stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import score
from pipelines.batch import folder_run
from pipelines.batch.options import ScoreOptions
from pipelines.errors import FolderError
from pipelines.rebuild import rebuild_report
from pipelines.score import score_folder


def test_a_stopped_run_has_a_report_too(
    trained, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_run, "SHARD_FILES", 5)
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions()) as scoring:
        for shard in scoring.shards()[:2]:
            scoring.run(shard)
    page = rebuild_report(tmp_path / "out").read_text()
    assert len(rows_of(tmp_path / "out")) == 10
    assert "has not finished" in page
    score_folder(images, trained.model, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 16


@pytest.mark.parametrize(("kind", "number"), [("budget", 3), ("false_discoveries", 0.5), ("false_alarms", 0.4)])
def test_a_stopped_run_is_reported_by_its_own_rule(
    trained, rows_of, images: Path, tmp_path: Path, kind: str, number: float
) -> None:
    asked = {"false_alarms": 0.9, kind: number} if kind == "budget" else {kind: number}
    score_folder(images, trained.model, tmp_path / "whole", **asked)
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions(**asked)) as scoring:
        for shard in scoring.shards():
            scoring.run(shard)
    rebuild_report(tmp_path / "out")
    verdicts, whole = (
        [(row["path"], row["is_anomaly"], row["threshold"]) for row in rows_of(tmp_path / name)]
        for name in ("out", "whole")
    )
    assert verdicts == whole
    settled = json.loads((tmp_path / "out" / "run.json").read_text())["calibration"]
    assert (settled["options"], settled["threshold"]) == (asked, whole[0][2])


def test_a_stopped_run_of_a_cross_calibration_stays_one(trained, rows_of, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "cross.json"
    kept = json.loads((trained.model.parent / "calibration.json").read_text())
    claim = {"kind": "cross", "folds": 5, "measured": {"rate": 0.1, "images": 20, "flagged": 1}}
    path.write_text(json.dumps(kept | claim))
    score_folder(images, trained.model, tmp_path / "whole", calibration=path)
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions(calibration=path)) as scoring:
        for shard in scoring.shards():
            scoring.run(shard)
    rebuild_report(tmp_path / "out")
    for name in ("whole", "out"):
        rows = rows_of(tmp_path / name)
        assert {row["promised"] for row in rows} == {False}
        assert None not in {row["p_value"] for row in rows}
        run = json.loads((tmp_path / name / "run.json").read_text())
        assert {key: run["calibration"][key] for key in claim} == claim
        assert "at a requested false-alarm rate of" in (tmp_path / name / "report.html").read_text()


def test_a_run_without_results_has_no_report_and_stays_as_it_is(trained, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with score.open_scoring(images, trained.model, out, ScoreOptions()):
        pass
    before = sorted(out.rglob("*"))
    with pytest.raises(FolderError, match=r"stopped before it had any results; start it again: kintsugi score"):
        rebuild_report(out)
    assert sorted(out.rglob("*")) == before
