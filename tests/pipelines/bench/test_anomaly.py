"""The whole benchmark on the bundled sample: real processes, what is run again and what is not, what fails."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.base.locks import locked
from pipelines.bench import cells
from pipelines.bench.anomaly import Bench, bench_anomaly
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import JobError, OutputError

SMALL = (
    "model.size=[64, 64]", "train.steps=4", "ours.model.target=pixels", "ours.model.width=4", "ours.model.score=elbo",
)  # fmt: skip

SUCCEED = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"


def run(out: Path, *methods: str, **options: Any) -> Bench:
    return bench_anomaly(
        [MAGNETIC_TILE], out, methods=methods, **{"seeds": 1, "overrides": SMALL, "max_train": 20} | options
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Ours and nearest neighbours, on half A."""
    return run(tmp_path_factory.mktemp("bench") / "out", "ours", "knn", half="A")


def crash(question: Path, answer: Path) -> list[str]:
    """A process that is ended from outside, as by a machine without memory."""
    return [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]


def test_both_methods_are_measured_on_the_same_images(measured: Bench) -> None:
    assert measured.failed == 0
    rows = measured.document["methods"]
    assert rows["ours"]["n_train"] == rows["knn"]["n_train"] == 11
    figures = [cell["figures"] for cell in measured.document["cells"]]
    assert len({(each["n_good"], each["n_bad"], tuple(each["defects"])) for each in figures}) == 1
    assert 0 < figures[0]["n_good"] < 12
    for row, each in zip(rows.values(), figures, strict=True):
        assert row["n_calibrate"] == 5  # a quarter
        assert row["rates"]["0.01"]["own_promised"]["mean"] == pytest.approx(1 / 6)
        # The default of the software is the least that so few images can promise, too.
        assert row["rates"]["0.01"]["own_rate"]["mean"] == each["fpr_at_threshold"]
        assert row["rates"]["0.01"]["own_recall"]["mean"] == each["tpr_at_threshold"]
        assert row["size"] == [64, 64]
        assert row["peak_mib"]["mean"] > 100
        assert row["train_seconds"]["mean"] > 0
        assert row["images_per_second"]["mean"] > 0
        assert 0 <= row["aupro"]["mean"] <= 1
    difference = measured.document["comparisons"]["rows"]["knn"]["sets"]["magnetic_tile"]["image_auroc"]["difference"]
    assert difference == pytest.approx(figures[0]["image_auroc"] - figures[1]["image_auroc"])
    assert (measured.out / "bench.md").read_text(encoding="utf-8") == measured.text
    assert json.loads((measured.out / "bench.json").read_text()) == json.loads(json.dumps(measured.document))


def test_ours_is_what_evaluate_says_of_the_exported_file(measured: Bench, tmp_path: Path) -> None:
    from pipelines.evaluate import evaluate_model

    (model,) = (measured.out / "home" / "models").glob("*/model.onnx")
    figures = evaluate_model(measured.out / "views" / "half-A", model)
    mine = measured.document["cells"][0]["figures"]
    for name in ("image_auroc", "image_ap", "pixel_auroc", "aupro", "fpr_at_threshold"):
        assert mine[name] == figures[name]


def test_what_is_finished_is_not_run_again(measured: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "command", crash)
    again = run(measured.out, "ours", "knn", half="A")
    assert again.failed == 0
    assert again.document == measured.document


def test_what_is_finished_is_run_again_when_asked(
    measured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured.out, out)
    monkeypatch.setattr(cells, "command", crash)
    again = run(out, "knn", half="A", fresh=True)
    assert again.failed == 1
    assert not list(out.glob("work/knn*/trained.json"))
    assert list(measured.out.glob("home/cache/data/*/pixels.npy"))
    assert not list(out.glob("home/cache/data/*/pixels.npy"))
    assert list(out.glob("cells/ours-*.json"))  # nobody asked for it


def test_the_other_half_is_scored_with_the_model_that_is_there(measured: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured.out, out)
    other = run(out, "ours", half="B")
    assert other.failed == 0
    assert len(list((out / "home" / "models").glob("*/model.onnx"))) == 1
    (first, second) = (bench.document["cells"][0] for bench in (measured, other))
    assert first["train_seconds"] == second["train_seconds"]
    assert first["figures"]["n_good"] + second["figures"]["n_good"] == 12
    assert first["figures"]["n_bad"] + second["figures"]["n_bad"] == 16


def test_a_method_that_crashes_is_a_row_and_is_tried_again(
    measured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured.out, out)
    with monkeypatch.context() as patch:
        patch.setattr(cells, "command", crash)
        bench = run(out, "autoencoder_l2", "knn", half="A")
    assert bench.failed == 1
    assert bench.document["methods"]["autoencoder_l2"]["failed"] == {
        "0": "its process was ended by SIGKILL, perhaps for want of memory"
    }
    assert bench.document["methods"]["knn"]["seeds"] == [0]
    assert "failed: its process was ended by SIGKILL" in bench.text
    (known,) = out.glob("work/knn-*/answer.json")  # stands for a process that gets through
    monkeypatch.setattr(cells, "command", lambda _, answer: [sys.executable, "-c", SUCCEED, str(known), str(answer)])
    again = run(out, "autoencoder_l2", "knn", half="A")
    assert again.failed == 0
    assert again.document["methods"]["autoencoder_l2"]["seeds"] == [0]


def test_a_mistake_in_the_settings_is_the_rows_reason(tmp_path: Path) -> None:
    bench = run(tmp_path / "out", "knn", overrides=["model.size=[64, 64]", "model.backbone=nonsense"])
    assert bench.failed == 1
    reason = bench.document["methods"]["knn"]["failed"]["0"]
    assert "'nonsense' is not a backbone" in reason
    assert "\n" not in reason


def test_without_anomalib_the_others_go_on(measured: Bench, tmp_path: Path, own_home: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured.out, out)
    bench = run(out, "patchcore", "knn", half="A", seeds=2)
    assert bench.failed == 4
    reason = bench.document["methods"]["patchcore_16"]["failed"]["1"]
    assert f"is not installed in {own_home / 'environments'}" in reason
    assert "run scripts/make_anomalib_environment.py" in reason
    assert bench.document["methods"]["knn"]["seeds"] == [0]  # no seed changes it
    assert bench.document["baseline"] == "knn"


def test_other_settings_are_another_measurement(
    measured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured.out, out)
    monkeypatch.setattr(cells, "command", crash)
    changed = run(out, "ours", "knn", half="A", overrides=(*SMALL, "ours.train.steps=5"))
    assert changed.document["methods"]["ours"]["failed"]
    assert changed.document["methods"]["knn"]["seeds"] == [0]  # which it does not concern
    assert run(out, "knn", half="A", max_train=30).failed == 1


def test_only_a_benchmarks_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"holds other files than a benchmark"):
        run(tmp_path, "knn")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_benchmarks_do_not_share_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked(out / "lock"), pytest.raises(OutputError, match=r"another benchmark is writing to"):
        run(out, "knn")


def test_mistakes_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"there is no method"):
        run(tmp_path / "out", "magic")
    assert not (tmp_path / "out").exists()
