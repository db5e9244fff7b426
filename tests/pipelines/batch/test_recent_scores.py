"""Scores of images that earlier runs beside this one accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.batch.recent_scores import read_recent


def write_run(folder: Path, finished: str | None, scores: list[float | None], *, sha256: str = "m") -> None:
    """A run that flags every score above 10; None is a file that failed."""
    folder.mkdir()
    run = {"finished": finished, "verb": "score", "model": {"sha256": sha256}}
    (folder / "run.json").write_text(json.dumps(run))
    table = pa.table({
        "status": ["failed" if score is None else "ok" for score in scores],
        "score": pa.array(scores, pa.float64()),
        "is_anomaly": [None if score is None else score > 10 for score in scores],
    })  # fmt: skip
    pq.write_table(table, folder / "results.parquet")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_run(tmp_path / "monday", "2026-11-02T10:00:00", [1.0, 2.0, 30.0])
    write_run(tmp_path / "tuesday", "2026-11-03T10:00:00", [3.0, None, 4.0])
    write_run(tmp_path / "another model", "2026-11-04T10:00:00", [5.0], sha256="n")
    write_run(tmp_path / "cut off", None, [6.0])
    write_run(tmp_path / "this", "2026-11-05T10:00:00", [7.0])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    return tmp_path / "this"


@pytest.mark.parametrize(("most", "expected"), [(0, []), (1, [3.0]), (3, [3.0, 4.0, 1.0]), (99, [3.0, 4.0, 1.0, 2.0])])
def test_the_newest_accepted_images_of_the_same_model_count(out: Path, most: int, expected: list[float]) -> None:
    assert read_recent(out, "m", most).tolist() == expected


def test_results_that_are_damaged_tell_nothing(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    (out.parent / "tuesday" / "results.parquet").write_bytes(b"no table")
    assert read_recent(out, "m", 9).tolist() == [1.0, 2.0]
    assert "tells nothing of recent images" in caplog.text
