"""Several data sets in one table: real files and processes, whose methods make their scores up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from pipelines.bench import cells
from pipelines.bench.anomaly import Bench, bench_anomaly
from pipelines.errors import DataError, FolderError, JobError

MADE_UP = """
import json, pathlib, random, sys
question = json.loads(pathlib.Path(sys.argv[1]).read_text())
test = pathlib.Path(question["test"]) / "test"
strength = {"knn": 1.0, "autoencoder_l2": 0.3}[question["method"]]
draw = random.Random(question["seed"] + len(question["method"]))
score = lambda path: draw.gauss(0 if path.parent.name == "good" else strength, 1)
scores = {path.relative_to(test).as_posix(): score(path) for path in sorted(test.rglob("*.png"))}
good, bad = ([value for path, value in scores.items() if path.startswith(label)] for label in ("good", "crack"))
auroc = sum(b > g for b in bad for g in good) / len(good) / len(bad)
figures = {
    "image_auroc": auroc, "image_ap": 0.5, "pixel_auroc": None, "n_good": len(good), "n_bad": len(bad), "roc": [],
    "aupro": 0.25 if "rail" in question["train"] else None, "defects": {"crack": {"image_auroc": auroc, "aupro": None}},
}
pathlib.Path(sys.argv[2]).write_text(json.dumps({
    "figures": figures, "train_seconds": 2.0, "images_per_second": 8.0, "peak_mib": 64.0, "size": [8, 8], "n_train": 6,
    "device": "cpu", "note": "made up", "scores": scores, "calibration": [draw.gauss(0, 1) for _ in range(19)],
}))
"""


def make_set(folder: Path, seed: int, good: int = 14, bad: int = 11) -> Path:
    generator = np.random.default_rng(seed)
    for part, count in (("train/good", 4), ("test/good", good), ("test/crack", bad)):
        (folder / part).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{index:02}.png")
    return folder


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    return [make_set(tmp_path / "tiles", 0), make_set(tmp_path / "rail", 1, good=9)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods make their scores up; the cells that were started."""
    names: list[str] = []

    def command(question: Path, answer: Path) -> list[str]:
        names.append(question.parent.name)
        return [sys.executable, "-I", "-S", "-c", MADE_UP, str(question), str(answer)]

    monkeypatch.setattr(cells, "command", command)
    return names


def run(sets: list[Path], out: Path, **options: Any) -> Bench:
    return bench_anomaly(sets, out, **{"methods": ["knn", "autoencoder_l2"], "seeds": 2} | options)


def test_the_joint_table_has_each_set_and_their_means(sets: list[Path], tmp_path: Path, started: list[str]) -> None:
    bench = run(sets, tmp_path / "out")
    assert bench.failed == 0
    row = bench.document["methods"]["autoencoder_l2"]
    single = {name: json.loads((bench.out / name / "bench.json").read_text()) for name in ("tiles", "rail")}
    aurocs = [document["methods"]["autoencoder_l2"]["image_auroc"]["mean"] for document in single.values()]
    assert [row["sets"][name]["image_auroc"] for name in single] == aurocs
    assert row["mean"]["image_auroc"] == pytest.approx(np.mean(aurocs))
    recalls = [row["sets"][name]["rates"]["0.05"]["own_recall"] for name in single]
    assert row["mean"]["rates"]["0.05"]["own_recall"] == pytest.approx(np.mean(recalls))
    assert row["sets"]["tiles"]["aupro"] is None
    assert row["mean"]["aupro"] == 0.25  # of the set that has masks
    assert {name: each["images"]["n_good"] for name, each in bench.document["datasets"].items()} == {
        "tiles": 14, "rail": 9,
    }  # fmt: skip
    difference = bench.document["comparisons"]["rows"]["autoencoder_l2"]["mean"]["image_auroc"]
    ours = bench.document["methods"]["knn"]["mean"]["image_auroc"]
    assert difference["difference"] == pytest.approx(ours - row["mean"]["image_auroc"])
    assert difference["low"] < difference["difference"] < difference["high"]
    assert json.loads((bench.out / "bench.json").read_text()) == bench.document
    assert (bench.out / "bench.md").read_text() == bench.text
    words = " ".join(bench.text.split())
    assert "autoencoder, L2 | mean of 2 | " in words
    assert "Calibration images of a row: 19; where these are too few for a rate" in words


def test_scores_are_in_the_cells_own_files_alone(sets: list[Path], tmp_path: Path, started: list[str]) -> None:
    bench = run(sets[:1], tmp_path / "out", methods=["knn"])
    (file,) = (bench.out / "cells").iterdir()
    scores = json.loads(file.read_text())["scores"]
    assert len(scores) == 25
    assert "scores" not in bench.document["cells"][0]
    assert "calibration" not in bench.document["cells"][0]
    auroc = roc_auc_score([not path.startswith("good/") for path in scores], list(scores.values()))
    assert bench.document["methods"]["knn"]["image_auroc"]["mean"] == pytest.approx(auroc)
    kept = json.loads((bench.out / "scores-knn.json").read_text())
    assert kept == {"tiles": {path: [score] for path, score in scores.items()}}


def test_a_stopped_benchmark_goes_on(
    sets: list[Path], tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, usual = tmp_path / "out", cells.command

    def stop_at_the_fifth(question: Path, answer: Path) -> list[str]:
        if len(started) == 4:
            raise KeyboardInterrupt
        return usual(question, answer)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "command", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            run(sets, out)
    assert list(json.loads((out / "bench.json").read_text())["datasets"]) == ["tiles"]
    assert len(started) == 4
    bench = run(sets, out)
    assert len(started) == 6
    assert len(set(started)) == 6
    assert run(sets, out).document == bench.document
    assert len(started) == 6
    (cell,) = (out / "tiles" / "cells").glob("knn-*.json")  # of an earlier version, which kept no scores
    without = {name: value for name, value in json.loads(cell.read_text()).items() if name != "scores"}
    cell.write_text(json.dumps(without))
    assert run(sets, out).document["methods"] == bench.document["methods"]
    assert started[6:] == started[:1]


def test_an_earlier_versions_scores_are_a_row(sets: list[Path], tmp_path: Path, started: list[str]) -> None:
    before = run(sets, tmp_path / "before")
    option = f"before={before.out / 'scores-autoencoder_l2.json'}"
    bench = run(sets, tmp_path / "out", scores=[option])
    old, new = (bench.document["methods"][name]["sets"] for name in ("before", "autoencoder_l2"))
    for name in ("tiles", "rail"):
        assert old[name]["image_auroc"] == pytest.approx(new[name]["image_auroc"])
        assert old[name]["rates"]["0.05"]["recall"] == new[name]["rates"]["0.05"]["recall"]
        assert old[name]["rates"]["0.05"]["own_recall"] is None
    rows = bench.document["comparisons"]["rows"]
    assert rows["before"] == rows["autoencoder_l2"]  # the same images in the same draws
    assert "before: scores of scores-autoencoder_l2.json, not run here" in (bench.out / "rail" / "bench.md").read_text()


def test_mistakes_in_any_set_are_found_before_the_first_is_measured(
    sets: list[Path], tmp_path: Path, started: list[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(FolderError, match=r"there is no train/good"):
        run([sets[0], tmp_path], out)
    with pytest.raises(JobError, match=r"two data sets are named 'tiles'"):
        run([sets[0], make_set(tmp_path / "other" / "tiles", 2)], out)
    assert not out.exists()
    scores = {path.relative_to(sets[0] / "test").as_posix(): 0.0 for path in (sets[0] / "test").rglob("*.png")}
    (tmp_path / "scores.json").write_text(json.dumps({"tiles": scores, "rail": scores}))
    option = f"before={tmp_path / 'scores.json'}"
    with pytest.raises(DataError, match=r"has 5 images that are not among the 20 test images of rail"):
        run(sets, out, scores=[option])
    with pytest.raises(DataError, match=r"give a score of each of these and of no other, from the same --half"):
        run(sets, out, scores=[option], half="A")
    assert not started


def test_a_row_that_fails_on_one_set_has_the_mean_of_the_others(
    sets: list[Path], tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = cells.command

    def fail_on_rail(question: Path, answer: Path) -> list[str]:
        if "rail" in question.parts and question.parent.name.startswith("knn"):
            return [sys.executable, "-c", "raise SystemExit('no | memory')"]
        return usual(question, answer)

    monkeypatch.setattr(cells, "command", fail_on_rail)
    bench = run(sets, tmp_path / "out")
    assert bench.failed == 1
    row = bench.document["methods"]["knn"]
    assert row["mean"] == row["sets"]["tiles"]
    words = " ".join(bench.text.split())
    assert "same features | rail | failed |" in words
    assert "same features | mean of 1 |" in words
    assert "on rail, seed 0: no / memory" in words
