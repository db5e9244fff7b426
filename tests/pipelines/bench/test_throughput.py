"""The benchmark of throughput: rows of real processes, kept when it is started again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.bench import throughput
from pipelines.bench.throughput import bench_throughput
from pipelines.errors import DataError


@pytest.fixture
def own(own_home: Path, trained) -> tuple[Path, str]:
    return trained.folder / "good", str(trained.model)


def test_rows_are_measured_in_processes_of_their_own_and_kept(own, tmp_path: Path, monkeypatch) -> None:
    folder, model = own
    rows = ("ours", "naive", "limits")
    done = bench_throughput(folder, tmp_path / "out", model=model, lines=rows, images=5, runs=1, growth=[7])
    kept = json.loads((done.out / "throughput.json").read_text())["runs"]
    assert {name: answer["images"] for name, (answer,) in kept.items()} == dict.fromkeys(rows, 5) | {"growth-7": 7}
    assert all(answer["seconds"] > 0 and answer["peak_mib"] > 50 for (answer,) in kept.values())
    assert set(kept["limits"][0]["stages"]) == {"decode", "run", "write"}
    assert "| 7 |" in done.text
    assert len(list(folder.iterdir())) > 7  # what was measured is as it was

    monkeypatch.setattr(throughput._Bench, "_run", None)
    again = bench_throughput(folder, tmp_path / "out", model=model, lines=rows, images=5, runs=1, growth=[7])
    assert again.text == done.text

    monkeypatch.setattr(throughput._Bench, "_run", lambda *_: kept["growth-7"][0])
    fresh = bench_throughput(folder, tmp_path / "out", model=model, lines=["ours"], images=5, runs=1, fresh=True)
    assert json.loads((fresh.out / "throughput.json").read_text())["runs"]["ours"] == kept["growth-7"]


def test_a_row_that_is_not_known_is_told(own, tmp_path: Path) -> None:
    folder, model = own
    with pytest.raises(DataError, match="there is no row 'others'; there are: ours, naive"):
        bench_throughput(folder, tmp_path / "out", model=model, lines=["others"])
    assert not (tmp_path / "out").exists()
