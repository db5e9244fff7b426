"""A schedule fires: `kintsugi serve` on intervals of seconds makes a model and a report appear, nothing faked."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from pipelines.demo_images import MAGNETIC_TILE

JOB = """
name = "tiles"
task = "reconstruct"
[data]
train = {train!r}
[model]
target = "pixels"
size = [48, 40]
stages = 2
width = 4
latent_channels = 4
samples = 1
[train]
steps = 10
[schedule]
train = "5s"
score = "5s"
folder = {folder!r}
out = "reports"
overlap = "skip"
"""


def champion_of(database: Path) -> int | None:
    """Read the registry's file directly: importing MLflow here would only slow the polling down."""
    if not database.is_file():
        return None
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("select version from registered_model_aliases where alias = 'champion'").fetchone()
        except sqlite3.OperationalError:
            return None
    return row and int(row[0])


def test_serve_trains_registers_scores_and_reports(
    tmp_path: Path, children_environment: dict[str, str], wait_for
) -> None:
    job = tmp_path / "tiles.toml"
    job.write_text(
        JOB.format(train=str(MAGNETIC_TILE / "train" / "good"), folder=str(MAGNETIC_TILE / "test" / "crack"))
    )
    log = tmp_path / "serve.log"
    with log.open("w") as output:
        serve = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve", str(job)],
            env=children_environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            database = tmp_path / "home" / "mlflow.db"
            wait_for(lambda: champion_of(database) or serve.poll(), "a registered version", seconds=300)
            assert serve.poll() is None, log.read_text()
            wait_for(lambda: list(tmp_path.glob("reports/*/report.html")) or serve.poll(), "a report", seconds=240)
            serve.send_signal(signal.SIGTERM)
            assert serve.wait(timeout=60) == 0, log.read_text()
        finally:
            serve.kill()
    out = next(tmp_path.glob("reports/*/report.html")).parent
    run = json.loads((out / "run.json").read_text())
    assert run["model"]["ref"] == "tiles@champion"
    assert run["counts"] == {"files": 4, "ok": 4, "failed": 0, "flagged": run["counts"]["flagged"]}
