"""The output folder: whose it is, what survives a kill, and that it ends in the same bytes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipelines import score
from pipelines.base.files import TEMPORARY
from pipelines.batch import folder_run, shard_store
from pipelines.batch.folder_run import Shard
from pipelines.batch.options import ScoreOptions
from pipelines.errors import EngineError, OutputError
from pipelines.evaluate import evaluate_model
from pipelines.score import score_folder

runner = CliRunner()


def test_an_output_folder_with_other_things_is_left_alone(trained, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other files"):
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


def test_a_second_run_on_the_same_output_stops(trained, images: Path, tmp_path: Path) -> None:
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions()):
        places = (str(images), str(trained.model), str(tmp_path / "out"))
        code = f"from pipelines import score_folder; score_folder(*{places!r})"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "another run is writing to" in second.stderr


def test_killed_at_any_moment_it_ends_in_the_same_bytes(trained, stable_bytes, images: Path, tmp_path: Path) -> None:
    """SIGKILL a real process again and again, a little later each time, then let it finish."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    code = (
        "import sys, pipelines.score as s, pipelines.batch.folder_run as f; f.SHARD_FILES = 3;"
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


STOPPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from pipelines.score import Scoring
calls, draw = [], Scoring._draw
def stop(*arguments):
    calls.append(1)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.{name})
    return draw(*arguments)
Scoring._draw = stop
from flows.cli import main
sys.argv = {words}
main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_was_scored_before_an_interrupt_is_kept(
    trained, stable_bytes, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("KINTSUGI_WORKERS", "1")
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = ["kintsugi", "score", images, "--model", trained.model, "--out", out, "--false-alarms", "0.6"]
    code = STOPPED.format(name=name, words=[str(word) for word in words])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "start the same command again" in done.stderr
    seen: list[str] = []
    score_folder(images, trained.model, out, false_alarms=0.6, observer=lambda row, _: seen.append(row["path"]))
    assert 16 - 5 <= len(seen) <= 16 - 3  # the sixth image was under way, the two before it were about to be taken
    score_folder(images, trained.model, whole, false_alarms=0.6)
    assert stable_bytes(out) == stable_bytes(whole)


def test_rows_are_written_every_few_seconds_and_come_to_the_same(
    trained, stable_bytes, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_folder(images, trained.model, tmp_path / "whole", false_alarms=0.6)
    monkeypatch.setattr(folder_run, "KEEP_SECONDS", 0.0)
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    assert len(list((tmp_path / "out").glob(".kintsugi-run/shards-*/*.parquet"))) == 16
    assert stable_bytes(tmp_path / "out") == stable_bytes(tmp_path / "whole")


def test_another_try_of_a_shard_in_one_process_has_all_pictures(
    trained, stable_bytes, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Prefect does when a share was away for a moment."""
    monkeypatch.setattr(shard_store, "GALLERY_ROWS", 5)
    monkeypatch.setattr(folder_run, "GALLERY_ROWS", 5)
    score_folder(images, trained.model, tmp_path / "whole")
    failures = [ConnectionResetError("the share is away")]

    def observe(row: dict, _: object) -> None:
        if row["path"].startswith("good") and failures:
            raise failures.pop()

    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions(observer=observe)) as scoring:
        (shard,) = scoring.shards()
        with pytest.raises(ConnectionResetError):
            scoring.run(shard)
        scoring.run(shard)
        scoring.finish()
    assert stable_bytes(tmp_path / "out") == stable_bytes(tmp_path / "whole")


def test_a_row_that_is_not_there_is_no_silent_loss(trained, images: Path, tmp_path: Path) -> None:
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions()) as scoring:
        (shard,) = scoring.shards()
        scoring.run(Shard(0, shard.of, shard.indices[1:]))
        assert scoring.count_missing() == 1
        with pytest.raises(OutputError, match=r"1 or more images have no row in .*: start the same command again"):
            scoring.finish()
    assert not (tmp_path / "out" / "results.parquet").exists()
    assert score_folder(images, trained.model, tmp_path / "out").files == len(shard.of)


def test_few_large_files_are_a_shard_of_their_own(
    trained, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with score.open_scoring(images, trained.model, tmp_path / "out", ScoreOptions()) as scoring:
        sizes = scoring.files.sizes
        monkeypatch.setattr(folder_run, "SHARD_BYTES", int(sizes[:3].sum()))
        monkeypatch.setattr(folder_run, "SHARD_FILES", 4)
        cut = [shard.indices.tolist() for shard in scoring.shards()]
        assert [index for part in cut for index in part] == list(range(len(sizes)))
        assert cut[0] == [0, 1, 2]
        assert all(len(part) <= 4 and (len(part) == 1 or sizes[part].sum() <= sizes[:3].sum()) for part in cut)
        monkeypatch.setattr(folder_run, "SHARD_BYTES", 1)
        assert [len(shard.indices) for shard in scoring.shards()] == [1] * len(sizes)


def test_an_observer_is_called_in_this_process(trained, images: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="needs the engine 'local', but the engine is 'ray'"):
        score_folder(images, trained.model, tmp_path / "out", observer=lambda *_: None, engine="ray")


def test_only_our_own_folders_are_written_and_tidied(trained, images: Path, tmp_path: Path) -> None:
    """A folder that holds a KINTSUGI_HOME and pictures of its own is not an output folder of ours."""
    out = tmp_path / "place"
    (out / ".kintsugi").mkdir(parents=True)
    (out / "maps").mkdir()
    shutil.copy(next((images / "good").iterdir()), out / "maps" / "holiday.png")
    with pytest.raises(OutputError, match=r"holds other files"):
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


def test_the_results_of_another_folder_are_not_replaced(trained, images: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    (other / "test").mkdir(parents=True)
    shutil.copytree(images / "good", other / "test" / "good")
    score_folder(images, trained.model, out, false_alarms=0.6)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for again in (
        lambda: score_folder(other, trained.model, out),
        lambda: score_folder(other, trained.model, out, fresh=True),
        lambda: evaluate_model(other, trained.model, out=out),
    ):
        with pytest.raises(
            OutputError, match=rf"the results of {images}, not of {other}.*: give another --out.*delete"
        ):
            again()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_same_folder_by_another_way_is_the_same(trained, images: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "out", tmp_path / "link"
    score_folder(images, trained.model, out)
    link.symlink_to(images)
    assert score_folder(link, trained.model, out).images_per_second is None


def test_a_run_that_had_no_results_keeps_nobody_out(trained, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with score.open_scoring(images / "good", trained.model, out, ScoreOptions()):
        pass  # Ctrl-C as soon as the mistake was seen
    assert score_folder(images, trained.model, out).files == 16


def test_every_row_of_the_csv_is_one_line_and_no_formula(trained, rows_of, images: Path, tmp_path: Path) -> None:
    some = next((images / "crack").iterdir())
    shutil.rmtree(images / "good")
    for name in ("line\nbreak.jpg", '=cmd|"x".jpg', "caf\udce9.jpg"):
        shutil.copy(some, images / name)
    score_folder(images, trained.model, tmp_path / "out")
    exact = ['=cmd|"x".jpg', r"caf\xe9.jpg", "line\nbreak.jpg"]
    assert [row["path"] for row in rows_of(tmp_path / "out") if not row["path"].startswith("crack")] == exact
    lines = (tmp_path / "out" / "results.csv").read_text("utf-8-sig").splitlines()
    assert len(lines) == 1 + 7
    assert (tmp_path / "out" / "results.csv").read_bytes().startswith(b'\xef\xbb\xbf"path"')  # for Excel
    assert [row["path"] for row in csv.DictReader(lines) if not row["path"].startswith("crack")] == [
        './=cmd|"x".jpg', r"caf\xe9.jpg", r"line\x0abreak.jpg",
    ]  # fmt: skip


def test_a_name_at_the_limit_of_the_file_system(trained, images: Path, tmp_path: Path) -> None:
    some = next((images / "crack").iterdir())
    for letter in ("x", "\u00e4"):
        shutil.copy(some, images / f"{letter * (245 // len(letter.encode()))}.jpg")
    summary = score_folder(images, trained.model, tmp_path / "out", false_alarms=0.9)
    assert summary.ok == 18
    assert len(list((tmp_path / "out" / "maps").rglob("*.png"))) == summary.flagged


def test_an_image_with_the_name_of_another_one_s_map_has_a_map_too(trained, images: Path, tmp_path: Path) -> None:
    """`a.png` has the map `maps/a.png.png`, which must not be the folder of the maps of `a.png.png/...`."""
    tile, other = sorted((images / "crack").iterdir())[:2]
    folder = tmp_path / "set"
    for name in ("a.png", "a.png.png/x.png", "a.png.png~/x.png", "b.PNG.png/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tile if name[0] == "a" else other, folder / name)
    for _ in range(2):
        done = score_folder(folder, trained.model, tmp_path / "out", all_maps=True)
        assert (done.ok, done.failed) == (4, 0)
        assert len([path for path in (tmp_path / "out" / "maps").rglob("*") if path.is_file()]) == 4
    for gone in ("a.png.png", "a.png.png~", "b.PNG.png"):
        shutil.rmtree(folder / gone)
    score_folder(folder, trained.model, tmp_path / "out", all_maps=True)
    assert [path.name for path in (tmp_path / "out" / "maps").iterdir()] == ["a.png.png"]


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that takes upper and lower case as equal."""
    monkeypatch.setattr("pipelines.batch.output_folder.folds_names", lambda *_: True)


@pytest.mark.usefixtures("folding")
def test_names_that_differ_in_case_alone_have_maps_of_their_own(trained, images: Path, tmp_path: Path) -> None:
    tile, other = sorted((images / "crack").iterdir())[:2]
    folder, out = tmp_path / "set", tmp_path / "out"
    (folder / "B").mkdir(parents=True)
    for name, source in (("a.png", tile), ("A.png", other), ("B/c.png", tile), ("b.png", other)):
        shutil.copy(source, folder / name)
    score_folder(folder, trained.model, out, all_maps=True)
    maps = [str(path.relative_to(out)) for path in (out / "maps").rglob("*.png")]
    assert len({name.lower() for name in maps}) == 4
    (folder / "A.png").rename(folder / "C.png")
    (folder / "b.png").rename(folder / "B.png")
    score_folder(folder, trained.model, out, all_maps=True)
    assert len(list((out / "maps").rglob("*.png"))) == 4
    assert "maps/A.png~" in str(maps)


def test_a_file_replaced_by_one_of_equal_size_and_time_is_scored_again_when_asked(
    trained, images: Path, rows_of, stable_bytes, tmp_path: Path
) -> None:
    out, image, gone = tmp_path / "out", images / "x.bmp", images / "gone.bmp"
    first, second = sorted((images / "crack").iterdir())[:2]
    for source, to in ((first, image), (first, gone)):
        Image.open(source).convert("L").resize((64, 64)).save(to)
    before = image.stat()
    score_folder(images, trained.model, out, all_maps=True)
    scored = {row["path"]: row["score"] for row in rows_of(out)}
    Image.open(second).convert("L").resize((64, 64)).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_size == before.st_size
    gone.unlink()
    (out / "maps" / "mine.txt").write_text("a note of the user's")
    done = runner.invoke(app, ["score", str(images), "--model", str(trained.model), "--out", str(out), "--fresh"])
    assert done.exit_code == 0, done.output
    assert {row["path"]: row["score"] for row in rows_of(out)}["x.bmp"] != scored["x.bmp"]
    (out / "maps" / "mine.txt").unlink()
    score_folder(images, trained.model, tmp_path / "new")
    assert stable_bytes(out) == stable_bytes(tmp_path / "new")


def test_half_written_files_of_a_killed_run_are_removed(trained, images: Path, tmp_path: Path) -> None:
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    left = tmp_path / "out" / "maps" / f"{TEMPORARY}123-4"
    left.write_bytes(b"half")
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    assert not left.exists()


def test_when_the_worst_are_gone_others_move_into_the_gallery(
    trained, rows_of, stable_bytes, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_store, "GALLERY_ROWS", 3)
    monkeypatch.setattr(folder_run, "GALLERY_ROWS", 3)
    out = tmp_path / "out"
    score_folder(images, trained.model, out)
    for row in sorted(rows_of(out), key=lambda row: -row["score"])[:3]:
        (images / row["path"]).unlink()
    score_folder(images, trained.model, out)
    score_folder(images, trained.model, tmp_path / "fresh")
    assert len(pq.read_table(out / ".kintsugi-run" / "gallery.parquet")) == 3
    assert stable_bytes(out) == stable_bytes(tmp_path / "fresh")


def test_figures_of_another_run_do_not_stay(trained, images: Path, tmp_path: Path) -> None:
    labelled, out = tmp_path / "labelled", tmp_path / "out"
    shutil.move(images, labelled / "test")
    evaluate_model(labelled, trained.model, out=out)
    assert (out / "evaluation.json").is_file()
    score_folder(labelled / "test", trained.model, out)
    assert not (out / "evaluation.json").exists()


def test_another_heat_scale_draws_all_maps_again(trained, stable_bytes, images: Path, tmp_path: Path) -> None:
    calibration = json.loads((trained.bundle / "calibration.json").read_text())
    calibration["map_quantiles"] = {key: value * 3 + 1 for key, value in calibration["map_quantiles"].items()}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(calibration))
    score_folder(images, trained.model, tmp_path / "used", false_alarms=0.6)
    score_folder(images, trained.model, tmp_path / "used", false_alarms=0.6, calibration=other)
    score_folder(images, trained.model, tmp_path / "fresh", false_alarms=0.6, calibration=other)
    assert stable_bytes(tmp_path / "used") == stable_bytes(tmp_path / "fresh")


def test_what_another_model_made_is_not_replaced_without_a_word(
    trained, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    assert "another model" not in caplog.text
    run = tmp_path / "out" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"work_key": "of another model"}))
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.6)
    assert "holds results of another model or other options, which are replaced" in caplog.text
