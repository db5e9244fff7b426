from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import FolderError
from pipelines.report.rows import ABNORMAL, FAILED, NORMAL, UNJUDGED, read_rows


def test_counts_and_order(make) -> None:
    rows = read_rows(make.folder() / "results.parquet", limit=100)
    assert [rows.count(code) for code in (NORMAL, ABNORMAL, FAILED, UNJUDGED)] == [7, 3, 1, 0]
    assert rows.worst["score"].to_pylist() == [*sorted(make.scores, reverse=True), None]
    assert rows.worst_verdicts.tolist() == [ABNORMAL] * 3 + [NORMAL] * 7 + [FAILED]
    assert [(failure.path, failure.reason) for failure in rows.failures] == [("broken.png", "truncated PNG")]
    assert (rows.model, rows.version, rows.threshold) == ("tiles", "3", make.threshold)
    assert not rows.is_truncated


def test_equal_scores_keep_path_order(make) -> None:
    out = make.folder(make.rows([0.5, 0.7, 0.5, 0.7], names=["b", "d", "a", "c"]))
    assert read_rows(out / "results.parquet", limit=10).worst["path"].to_pylist() == ["c", "d", "a", "b"]


def test_limit_keeps_the_worst_and_the_failed(make) -> None:
    scores = [float(x) for x in np.random.default_rng(0).permutation(1000) / 1000]
    out = make.folder(make.rows(scores, failed=[(f"z{i}", "bad") for i in range(20)]), gallery=False)
    rows = read_rows(out / "results.parquet", limit=100)
    assert rows.is_truncated
    assert rows.total == 1020
    kept = rows.worst["score"].to_pylist()
    assert kept[:90] == sorted(scores, reverse=True)[:90]
    assert kept[90:] == [None] * 10
    assert len(rows.known_scores) == 1000
    assert len(rows.failures) == 20


def test_limit_with_ties_at_the_cut_is_filled_in_path_order(make) -> None:
    out = make.folder(make.rows([0.5] * 10 + [0.9], names=[f"{i:02d}" for i in range(11)]), gallery=False)
    rows = read_rows(out / "results.parquet", limit=4)
    assert rows.worst["path"].to_pylist() == ["10", "00", "01", "02"]


def test_rows_without_a_verdict_are_unjudged(make) -> None:
    rows = read_rows(make.folder(make.rows(make.scores, calibrated=False), run=None) / "results.parquet", limit=100)
    assert rows.count(UNJUDGED) == 10
    assert rows.threshold is None
    assert not rows.has_threshold


def test_scores_that_are_not_numbers_come_last(make) -> None:
    out = make.folder(make.rows([0.5, float("nan"), 0.7]), gallery=False)
    rows = read_rows(out / "results.parquet", limit=10)
    assert rows.worst["path"].to_pylist()[-1] == "line/image_0001.png"
    assert rows.known_scores.tolist() == [0.5, 0.7]


def test_columns_of_older_or_other_types_are_read(tmp_path: Path) -> None:
    table = pa.table({"path": ["a", "b"], "status": ["ok", "ok"], "score": pa.array([1.0, 2.0], pa.float32())})
    pq.write_table(table, tmp_path / "results.parquet")
    rows = read_rows(tmp_path / "results.parquet", limit=10)
    assert rows.worst["path"].to_pylist() == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nothing to report on. Run `kintsugi score` or `kintsugi restore` with --out"),
        (b"PAR1 cut short", "cannot be read"),
        (pa.table({"path": ["a"], "status": ["ok"], "score": [1.0]}).slice(0, 0), "has no rows"),
        (pa.table({"path": ["a"]}), "has no column status, score"),
    ],
)
def test_nothing_to_report_on(tmp_path: Path, content: pa.Table | bytes | None, message: str) -> None:
    path = tmp_path / "results.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(content, path)
    with pytest.raises(FolderError, match=message):
        read_rows(path, limit=10)
