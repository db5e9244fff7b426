"""The batch job on real and on broken files: rows, maps, resume after a real kill, and the same bytes in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from pipelines import output, score
from pipelines.calibration import Calibration
from pipelines.errors import CalibrationError, EmptyFolderError, FolderError, OutputError
from pipelines.evaluate import evaluate_model
from pipelines.rebuild import rebuild_report
from pipelines.sample import MAGNETIC_TILE
from pipelines.score import ScoreSummary, score_folder

TEST_IMAGES = MAGNETIC_TILE / "test"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    shutil.copytree(TEST_IMAGES / "good", folder / "good")
    shutil.copytree(TEST_IMAGES / "crack", folder / "crack")
    return folder


def rows_of(out: Path) -> list[dict]:
    return pq.read_table(out / "results.parquet").to_pylist()


def stable_bytes(out: Path) -> dict[str, bytes]:
    """Everything that must not depend on how often a run was stopped; times and the lock aside."""
    kept = [p for p in out.rglob("*") if p.is_file() and p.name not in {"run.json", "report.html", "lock"}]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept if "shards-" not in str(p)}


def test_every_image_has_a_row_with_a_verdict(trained, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = score_folder(images, trained.model, out)
    rows = rows_of(out)
    assert summary.files == summary.ok == len(rows) == 16
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    calibration = Calibration.load(trained.bundle / "calibration.json", model_sha256=rows_model(out))
    for row in rows:
        assert row["status"] == "ok"
        assert row["elbo"] == pytest.approx(-(row["rate"] + row["distortion"]), rel=1e-5)
        assert row["score"] == pytest.approx(-row["elbo"] / (48 * 40), rel=1e-5)
        assert row["bits_per_dim"] == pytest.approx(row["score"] / np.log(2), rel=1e-5)
        assert row["p_value"] == calibration.p_values(np.array([row["score"]]))[0]
        assert row["is_anomaly"] == (row["p_value"] <= summary.false_alarms)
        assert (out / "maps" / f"{row['path']}.png").is_file() == row["is_anomaly"]
    csv = (out / "results.csv").read_text().splitlines()
    assert len(csv) == 17
    assert csv[0].startswith('"path","sha256","width"')


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


def test_odd_files_become_rows_and_the_rest_is_done(trained, images: Path, tmp_path: Path) -> None:
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
    assert rows["deep.tif"]["bit_depth"] == 16
    assert "8" in rows["deep.tif"]["note"]
    assert rows["moving.gif"]["status"] == "ok"
    assert "notes.txt" not in rows
    report = (tmp_path / "out" / "report.html").read_text()
    assert "bomb.png" in report


def test_bad_folders_are_refused_with_nothing_done(trained, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    with pytest.raises(EmptyFolderError):
        score_folder(tmp_path / "empty", trained.model, out)
    with pytest.raises(FolderError):
        score_folder(tmp_path / "nowhere", trained.model, out)
    assert not out.exists()


def test_an_output_folder_with_other_things_is_left_alone(trained, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds something else"):
        score_folder(images, trained.model, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("folder", ["images", "."])
def test_output_inside_the_input_is_not_scored_again(
    trained, images: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(images.parent if folder == "images" else images)
    first = score_folder(folder, trained.model, images / "out", false_alarms=0.6)
    again = score_folder(folder, trained.model, images / "out", false_alarms=0.6)
    assert first.files == again.files == 16


def test_without_calibration_there_are_scores_and_no_verdicts(trained, images: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "model.onnx"
    alone.parent.mkdir()
    shutil.copy(trained.model, alone)
    summary = score_folder(images, alone, tmp_path / "out")
    assert (summary.threshold, summary.flagged) == (None, 0)
    assert all(row["p_value"] is row["is_anomaly"] is row["threshold"] is None for row in rows_of(tmp_path / "out"))
    assert "calibration" in json.loads((tmp_path / "out" / "run.json").read_text())["warnings"][0]


def test_only_new_and_changed_files_are_scored_again(trained, images: Path, tmp_path: Path) -> None:
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


def test_a_second_run_on_the_same_output_stops(trained, images: Path, tmp_path: Path) -> None:
    with score.open_scoring(images, trained.model, tmp_path / "out"):
        places = (str(images), str(trained.model), str(tmp_path / "out"))
        code = f"from pipelines import score_folder; score_folder(*{places!r})"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "another run is writing to" in second.stderr


def test_killed_at_any_moment_it_ends_in_the_same_bytes(trained, images: Path, tmp_path: Path) -> None:
    """SIGKILL a real process again and again, a little later each time, then let it finish."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    code = (
        "import sys, pipelines.score as s; s.SHARD_FILES = 3;"
        f"s.score_folder({str(images)!r}, {str(trained.model)!r}, sys.argv[1], false_alarms=0.6)"
    )
    subprocess.run([sys.executable, "-c", code, str(whole)], check=True)
    kills = 0
    for wanted in range(1, 6):  # after one more shard each time
        process = subprocess.Popen([sys.executable, "-c", code, str(out)])
        ends = time.monotonic() + 120
        while process.poll() is None and len(list(out.glob(".kintsugi-run/shards-*/*.parquet"))) < wanted:
            assert time.monotonic() < ends
            time.sleep(0.002)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in out.rglob("*.png"):
            Image.open(path).load()  # never half a map
        for path in out.rglob("*.parquet"):
            if not path.name.endswith(".tmp"):
                pq.read_table(path)
    assert kills >= 3
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    assert stable_bytes(out) == stable_bytes(whole)


def test_scores_do_not_depend_on_order_or_company(trained, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "all")
    alone = tmp_path / "alone"
    alone.mkdir()
    chosen = sorted((images / "crack").iterdir())[1]
    shutil.copy(chosen, alone / "zzz.jpg")
    score_folder(alone, trained.model, tmp_path / "one")
    together = {row["sha256"]: row["score"] for row in rows_of(tmp_path / "all")}
    (single,) = rows_of(tmp_path / "one")
    assert together[single["sha256"]] == single["score"]


WITHOUT_TRAINING = """
import sys
TRAINING = "torch torchvision lightning mlflow prefect vaecore onnx skimage sklearn".split()
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in TRAINING:
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from flows.cli import main
sys.argv = {words}
main()
"""


def test_the_worker_needs_neither_torch_nor_mlflow_nor_prefect(trained, images: Path, tmp_path: Path) -> None:
    """The exported file and calibration.json alone, in a process where the rest cannot be imported."""
    alone = tmp_path / "worker"
    alone.mkdir()
    for name in ("model.onnx", "calibration.json"):
        shutil.copy(trained.bundle / name, alone)
    words = ["kintsugi", "score", images, "--model", alone / "model.onnx", "--out", tmp_path / "worker-out"]
    code = WITHOUT_TRAINING.format(words=[str(word) for word in words])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score_folder(images, trained.model, tmp_path / "full")
    keys = ("path", "score", "elbo", "rate", "distortion", "p_value", "is_anomaly")
    worker, full = rows_of(tmp_path / "worker-out"), rows_of(tmp_path / "full")
    assert [[row[key] for key in keys] for row in worker] == [[row[key] for key in keys] for row in full]


def test_the_summary_is_what_the_rows_say(trained, images: Path, tmp_path: Path) -> None:
    summary = score_folder(images, trained.model, tmp_path / "out", false_alarms=0.3)
    assert isinstance(summary, ScoreSummary)
    rows = rows_of(tmp_path / "out")
    assert summary.flagged == sum(row["is_anomaly"] for row in rows)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["counts"] == {"files": 16, "ok": 16, "failed": 0, "flagged": summary.flagged}
    assert run["calibration"]["n"] == 18
    assert run["versions"]["provider"] == "CPUExecutionProvider"


def test_only_our_own_folders_are_written_and_tidied(trained, images: Path, tmp_path: Path) -> None:
    """A folder that holds a KINTSUGI_HOME and pictures of its own is not an output folder of ours."""
    out = tmp_path / "place"
    (out / ".kintsugi").mkdir(parents=True)
    (out / "maps").mkdir()
    shutil.copy(next((images / "good").iterdir()), out / "maps" / "holiday.png")
    with pytest.raises(OutputError, match=r"holds something else"):
        score_folder(images, trained.model, out)
    ours = tmp_path / "ours"
    score_folder(images, trained.model, ours, false_alarms=0.6)
    shutil.copy(out / "maps" / "holiday.png", ours / "maps" / "holiday.png")
    score_folder(images, trained.model, ours)
    assert (ours / "maps" / "holiday.png").is_file()


def test_output_folders_of_other_runs_are_not_input(trained, images: Path) -> None:
    score_folder(images, trained.model, images / "first", false_alarms=0.9)
    assert list((images / "first" / "maps").rglob("*.png"))
    assert score_folder(images, trained.model, images / "second").files == 16


def test_figures_of_another_run_do_not_stay(trained, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate_model(MAGNETIC_TILE, trained.model, out=out)
    assert (out / "evaluation.json").is_file()
    score_folder(images, trained.model, out)
    assert not (out / "evaluation.json").exists()


def test_another_heat_scale_draws_all_maps_again(trained, images: Path, tmp_path: Path) -> None:
    calibration = json.loads((trained.bundle / "calibration.json").read_text())
    calibration["map_quantiles"] = {key: value * 3 + 1 for key, value in calibration["map_quantiles"].items()}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(calibration))
    score_folder(images, trained.model, tmp_path / "used", false_alarms=0.6)
    score_folder(images, trained.model, tmp_path / "used", false_alarms=0.6, calibration=other)
    score_folder(images, trained.model, tmp_path / "fresh", false_alarms=0.6, calibration=other)
    assert stable_bytes(tmp_path / "used") == stable_bytes(tmp_path / "fresh")


def test_when_the_worst_are_gone_others_move_into_the_gallery(
    trained, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "GALLERY_ROWS", 3)
    monkeypatch.setattr(score, "GALLERY_ROWS", 3)
    out = tmp_path / "out"
    score_folder(images, trained.model, out)
    for row in sorted(rows_of(out), key=lambda row: -row["score"])[:3]:
        (images / row["path"]).unlink()
    score_folder(images, trained.model, out)
    score_folder(images, trained.model, tmp_path / "fresh")
    assert len(pq.read_table(out / ".kintsugi-run" / "gallery.parquet")) == 3
    assert stable_bytes(out) == stable_bytes(tmp_path / "fresh")


def test_a_name_at_the_limit_of_the_file_system(trained, images: Path, tmp_path: Path) -> None:
    some = next((images / "crack").iterdir())
    for letter in ("x", "\u00e4"):
        shutil.copy(some, images / f"{letter * (245 // len(letter.encode()))}.jpg")
    summary = score_folder(images, trained.model, tmp_path / "out", false_alarms=0.9)
    assert summary.ok == 18
    assert len(list((tmp_path / "out" / "maps").rglob("*.png"))) == summary.flagged


def test_half_written_files_of_a_killed_run_are_removed(trained, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    left = tmp_path / "out" / "maps" / f"{output.TEMPORARY}123-4"
    left.write_bytes(b"half")
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    assert not left.exists()


def test_a_stopped_run_has_a_report_too(trained, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "SHARD_FILES", 5)
    with score.open_scoring(images, trained.model, tmp_path / "out") as scoring:
        for shard in scoring.shards()[:2]:
            scoring.run(shard)
    page = rebuild_report(tmp_path / "out").read_text()
    assert len(rows_of(tmp_path / "out")) == 10
    assert "has not finished" in page
    score_folder(images, trained.model, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 16


def test_the_command_reproduces_the_run(trained, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.3)
    command = json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    assert command == f"kintsugi score {images} --model {trained.model} --out {tmp_path / 'out'} --false-alarms 0.3"
