"""The batch job on real and on broken files: rows, maps, resume after a real kill, and the same bytes in the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipelines.anomaly.calibration import Calibration
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import CalibrationError, EmptyFolderError, FolderError
from pipelines.score import ScoreSummary, score_folder

TEST_IMAGES = MAGNETIC_TILE / "test"


def test_every_image_has_a_row_with_a_verdict(trained, rows_of, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = score_folder(images, trained.model, out)
    rows = rows_of(out)
    assert summary.files == summary.ok == len(rows) == 16
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    calibration = Calibration.load(trained.bundle / "calibration.json", model_sha256=rows_model(out))
    for row in rows:
        assert row["status"] == "ok"
        assert row["elbo"] == pytest.approx(-(row["rate"] + row["distortion"]), rel=1e-5)
        assert row["bits_per_dim"] == pytest.approx(-row["elbo"] / (48 * 40 * np.log(2)), rel=1e-5)
        assert row["p_value"] == calibration.p_values(np.array([row["score"]]))[0]
        assert row["is_anomaly"] == (row["p_value"] <= summary.false_alarms)
        assert (out / "maps" / f"{row['path']}.png").is_file() == row["is_anomaly"]
    lines = (out / "results.csv").read_text("utf-8-sig").splitlines()
    assert len(lines) == 17
    assert lines[0].startswith('"path","sha256","width"')


def rows_model(out: Path) -> str:
    return str(json.loads((out / "run.json").read_text())["model"]["sha256"])


def test_a_higher_rate_flags_more_and_draws_the_missing_maps_only(trained, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = score_folder(images, trained.model, out)
    second = score_folder(images, trained.model, out, false_alarms=0.6)
    assert second.flagged > first.flagged
    assert len(list((out / "maps").rglob("*.png"))) == second.flagged
    third = score_folder(images, trained.model, out)
    assert third.flagged == first.flagged
    assert third.images_per_second is None  # nothing was left to score
    maps = list((out / "maps").rglob("*.png")) if (out / "maps").exists() else []
    assert len(maps) == first.flagged


def test_a_rate_that_the_calibration_cannot_promise_is_refused(trained, images: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"18"):
        score_folder(images, trained.model, tmp_path / "out", false_alarms=0.01)
    assert not (tmp_path / "out").exists()


def test_odd_files_become_rows_and_the_rest_is_done(trained, rows_of, images: Path, tmp_path: Path) -> None:
    good = next((images / "good").iterdir()).read_bytes()
    (images / "text.png").write_text("these are words")
    (images / "half.jpg").write_bytes(good[: len(good) // 2])
    (images / "empty.jpg").touch()
    Image.new("L", (1, 1), 7).save(images / "one.png")
    tifffile.imwrite(images / "deep.tif", np.random.default_rng(0).integers(0, 65536, (60, 50), dtype=np.uint16))
    frames = [Image.new("P", (40, 30), color) for color in (1, 2, 3)]
    frames[0].save(images / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (20_000, 20_000)).save(images / "bomb.png")
    (images / "notes.txt").write_text("not an image by its name: no row")
    summary = score_folder(images, trained.model, tmp_path / "out")
    rows = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert (summary.failed, summary.ok) == (4, 19)
    assert {path for path, row in rows.items() if row["status"] == "failed"} == {
        "text.png",
        "half.jpg",
        "empty.jpg",
        "bomb.png",
    }
    for name in ("text.png", "half.jpg", "empty.jpg", "bomb.png"):
        assert rows[name]["error"]
        assert rows[name]["score"] is None
        assert rows[name]["is_anomaly"] is None
    assert (rows["one.png"]["width"], rows["one.png"]["height"]) == (1, 1)
    assert rows["one.png"]["note"] == "enlarged from 1 x 1 pixels to 40 x 48: its score says little"
    assert rows["deep.tif"]["bit_depth"] == 16
    assert "8" in rows["deep.tif"]["note"]
    assert rows["moving.gif"]["status"] == "ok"
    assert "notes.txt" not in rows
    report = (tmp_path / "out" / "report.html").read_text()
    assert "bomb.png" in report
    assert rows["one.png"]["note"] in report


LOCKED = """
import os, sys
scandir = os.scandir
def refuse(path):  # permissions do not bind root, who may run the tests
    if str(path).endswith("locked"):
        raise PermissionError(13, "Permission denied", path)
    return scandir(path)
os.scandir = refuse
from flows.cli import main
sys.argv = {words}
main()
"""


def test_a_folder_that_cannot_be_read_is_a_failed_row(
    trained, rows_of, stable_bytes, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (images / "good" / "locked").mkdir()
    words = ["kintsugi", "score", images, "--model", trained.model, "--out", out]
    code = LOCKED.format(words=[str(word) for word in words])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "1 of 17 files could not be scored" in done.stderr
    rows = rows_of(out)
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert (failed["path"], failed["error"]) == ("good/locked/", "the folder cannot be read: Permission denied")
    run = json.loads((out / "run.json").read_text())
    assert run["counts"] == {"files": 17, "ok": 16, "failed": 1, "flagged": run["counts"]["flagged"]}
    assert "good/locked/" in (out / "report.html").read_text()
    (images / "good" / "locked").rmdir()
    score_folder(images, trained.model, out)
    score_folder(images, trained.model, tmp_path / "fresh")
    assert stable_bytes(out) == stable_bytes(tmp_path / "fresh")


def test_bad_folders_are_refused_with_nothing_done(trained, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    with pytest.raises(EmptyFolderError):
        score_folder(tmp_path / "empty", trained.model, out)
    with pytest.raises(FolderError):
        score_folder(tmp_path / "nowhere", trained.model, out)
    assert not out.exists()


def test_without_calibration_there_are_scores_and_no_verdicts(
    trained, rows_of, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = tmp_path / "alone" / "model.onnx"
    alone.parent.mkdir()
    shutil.copy(trained.model, alone)
    summary = score_folder(images, alone, tmp_path / "out")
    assert (summary.threshold, summary.flagged) == (None, 0)
    assert all(row["p_value"] is row["is_anomaly"] is row["threshold"] is None for row in rows_of(tmp_path / "out"))
    (warning,) = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert warning.startswith(
        f"no image has a verdict or a p-value, since {alone.parent / 'calibration.json'} is missing"
    )
    assert "Copy calibration.json and gallery.safetensors there" in warning
    assert caplog.messages[-1] == warning
    report = (tmp_path / "out" / "report.html").read_text()
    assert warning.split("`")[0] in report
    assert "There are no verdicts in this report" in report


def test_only_new_and_changed_files_are_scored_again(trained, stable_bytes, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score_folder(images, trained.model, out)
    some = sorted((images / "good").iterdir())
    some[0].unlink()
    shutil.copy(next((TEST_IMAGES / "fray").iterdir()), some[1])
    os.utime(some[1], ns=(1, 1))
    seen: list[str] = []
    summary = score_folder(images, trained.model, out, observer=lambda row, _: seen.append(row["path"]))
    assert seen == [f"good/{some[1].name}"]
    assert summary.files == 15
    fresh = tmp_path / "fresh"
    score_folder(images, trained.model, fresh)
    assert stable_bytes(out) == stable_bytes(fresh)


def test_scores_do_not_depend_on_order_or_company(trained, rows_of, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "all")
    alone = tmp_path / "alone"
    alone.mkdir()
    chosen = sorted((images / "crack").iterdir())[1]
    shutil.copy(chosen, alone / "zzz.jpg")
    score_folder(alone, trained.model, tmp_path / "one")
    together = {row["sha256"]: row["score"] for row in rows_of(tmp_path / "all")}
    (single,) = rows_of(tmp_path / "one")
    assert together[single["sha256"]] == single["score"]


def test_the_worker_needs_neither_torch_nor_mlflow_nor_prefect(
    trained, rows_of, run_without_training, images: Path, tmp_path: Path
) -> None:
    """The exported file with calibration and gallery alone, in a process where the rest cannot be imported."""
    alone = tmp_path / "worker"
    alone.mkdir()
    for name in ("model.onnx", "calibration.json", "gallery.safetensors"):
        shutil.copy(trained.bundle / name, alone)
    run_without_training(["score", images, "--model", alone / "model.onnx", "--out", tmp_path / "worker-out"])
    score_folder(images, trained.model, tmp_path / "full")
    keys = ("path", "score", "elbo", "rate", "distortion", "p_value", "is_anomaly")
    worker, full = rows_of(tmp_path / "worker-out"), rows_of(tmp_path / "full")
    assert [[row[key] for key in keys] for row in worker] == [[row[key] for key in keys] for row in full]
    gallery = ".kintsugi-run/gallery.parquet"
    assert (tmp_path / "worker-out" / gallery).read_bytes() == (tmp_path / "full" / gallery).read_bytes()


def test_the_summary_is_what_the_rows_say(trained, rows_of, images: Path, tmp_path: Path) -> None:
    summary = score_folder(images, trained.model, tmp_path / "out", false_alarms=0.3)
    assert isinstance(summary, ScoreSummary)
    rows = rows_of(tmp_path / "out")
    assert summary.flagged == sum(row["is_anomaly"] for row in rows)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["counts"] == {"files": 16, "ok": 16, "failed": 0, "flagged": summary.flagged}
    assert run["calibration"]["n"] == 18
    assert run["versions"]["provider"] == "CPUExecutionProvider"


def test_the_command_reproduces_the_run(trained, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.3)
    command = json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    assert command == f"kintsugi score {images} --model {trained.model} --out {tmp_path / 'out'} --false-alarms 0.3"


@pytest.mark.parametrize(("calibrated_on", "warned"), [("CUDAExecutionProvider", True), (None, False), ("same", False)])
def test_scores_of_another_processor_than_the_threshold_s_are_a_warning(
    trained, images, tmp_path, calibrated_on, warned
) -> None:
    bundle = shutil.copytree(trained.bundle, tmp_path / "bundle")
    calibration = json.loads((bundle / "calibration.json").read_text())
    assert calibration["provider"] == "CPUExecutionProvider"
    if calibrated_on is None:
        del calibration["provider"]  # as earlier versions wrote it
    elif calibrated_on != "same":
        calibration["provider"] = calibrated_on
    (bundle / "calibration.json").write_text(json.dumps(calibration))
    for _ in range(2):  # a run that has nothing left to do warns, too
        score_folder(images / "crack", bundle / "model.onnx", tmp_path / "out")
        run = json.loads((tmp_path / "out" / "run.json").read_text())
        about = [each for each in run["warnings"] if "calibrated on CUDA and scored on CPU" in each]
        assert len(about) == warned
        assert all("may differ by" in each and "Set KINTSUGI_DEVICE=cuda" in each for each in about)
