"""`kintsugi report` of one run, and of a folder of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.score import score_folder


def test_a_folder_of_runs_gets_a_page_over_time(trained, tmp_path: Path) -> None:
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    for out in runs:
        score_folder(MAGNETIC_TILE / "test" / "good", trained.model, out)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "runs")])
    assert (done.exit_code, done.output) == (0, f"report: {tmp_path / 'runs' / 'tiles.html'}\n")
    page = (tmp_path / "runs" / "tiles.html").read_text("utf-8")
    counts = json.loads((runs[1] / "run.json").read_text())["counts"]
    assert f"Last run: {counts['flagged']} of 12 images flagged" in page
    assert page.count('href="second/report.html"') == 4  # in the charts of rates, scores and throughput, and the table
    done = CliRunner().invoke(app, ["report", str(runs[0])])
    assert (done.exit_code, done.output) == (0, f"report: {runs[0] / 'report.html'}\n")


@pytest.mark.parametrize("runs", [True, False])
def test_a_folder_without_anything_finished_ends_with_2(tmp_path: Path, runs: bool) -> None:
    (tmp_path / "one").mkdir()
    if runs:
        (tmp_path / "one" / "run.json").write_text('{"finished": null}')
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert ("no run in the folders of" if runs else "nothing to report on") in done.output
