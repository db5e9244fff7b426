"""Splits by content, the choice of a working size, and odd training folders."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipelines.base.locks import locked
from pipelines.data.plan import Plan, make_plan, survey, working_size
from pipelines.data.splits import reserve, split_by_content
from pipelines.data.training_images import load_training_data
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError
from pipelines.images import Failed
from pipelines.jobfile.job import Job, job_from_document
from pipelines.models.inputs import decode_for
from pipelines.training.options import find_task
from vaecore.representations.image_format import ImageFormat


def digests(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def job_of(folder: Path, **model: object) -> Job:
    document = {
        "name": "x",
        "task": "reconstruct",
        "data": {"train": str(folder)},
        "model": {"target": "pixels", **model},
    }
    return job_from_document(document, folder / "job.toml")


def plan_of(job: Job) -> Plan:
    return make_plan(job, find_task(job), survey(job))


@pytest.mark.parametrize("count", [10, 50, 72, 395, 396, 660, 5000])
def test_splits_are_disjoint_and_complete(count: int) -> None:
    split = split_by_content(digests(count))
    parts = [set(indices) for indices in split.values()]
    assert set().union(*parts) == set(range(count))
    assert sum(map(len, parts)) == count
    assert len(split["train"]) >= count * 0.3
    if count >= 396:
        assert len(split["calibrate"]) >= 99  # enough to promise 1 %


def test_membership_depends_on_content_not_on_order() -> None:
    names = digests(100)
    split = split_by_content(names, 0.25)
    shuffled = list(np.random.default_rng(0).permutation(names))
    again = split_by_content(shuffled, 0.25)
    for part in split:
        assert {names[index] for index in split[part]} == {shuffled[index] for index in again[part]}


def test_when_the_folder_grows_held_out_images_mostly_stay_held_out() -> None:
    names = digests(1200)
    before, after = split_by_content(names[:1000], 0.25), split_by_content(names, 0.25)
    assert len(set(before["calibrate"]) & set(after["train"])) < 0.1 * len(before["calibrate"])


def test_too_few_images_say_how_many_are_needed() -> None:
    with pytest.raises(DataError, match=r"there are 9 different readable images; training needs at least 10"):
        split_by_content(digests(9), 0.25)
    with pytest.raises(DataError, match=r"there are 4 different readable images; training needs at least 5"):
        split_by_content(digests(4), cross=True)


def test_five_images_are_enough_where_folds_calibrate() -> None:
    for first in range(0, 500, 5):
        split = split_by_content(digests(505)[first : first + 5], cross=True)
        assert len(split["train"]) == len(split["calibrate"]) == 4
        assert len(split["select"]) == 1


def test_a_piece_of_many_photographs_in_reserve_may_leave_too_few() -> None:
    message = r"5 images of 3 pieces by 'data.group', less the piece in reserve, leave 2 to train, and at least 4 are"
    drawn = ([f"{piece}{number}" for piece in "aaabc"] for number in range(30))
    names = next(each for each in drawn if len(reserve(digests(5), each)) == 3)
    with pytest.raises(DataError, match=message):
        split_by_content(digests(5), None, names, cross=True)


@pytest.mark.parametrize(
    ("given", "size", "stages"),
    [
        ((480.0, 640.0, None, None), (64, 96), 4),
        ((28.0, 28.0, None, None), (28, 28), 2),
        ((5.0, 900.0, None, None), (2, 96), 1),
        ((480.0, 640.0, 256, None), (192, 256), 4),
        ((480.0, 640.0, (100, 50), 1), (100, 50), 1),
        ((480.0, 640.0, (100, 50), 4), (96, 48), 4),
    ],
)
def test_working_size(given: tuple, size: tuple[int, int], stages: int) -> None:
    assert working_size(*given, (0, 96)) == (size, stages)
    assert all(side % 2**stages == 0 for side in size)


def test_grey_images_stored_as_rgb_are_grey(tiles: Path) -> None:
    for path in tiles.iterdir():
        Image.open(path).convert("RGB").save(path.with_suffix(".png"))
        path.unlink()
    assert plan_of(job_of(tiles)).image_format.channels == 1


def test_one_coloured_image_makes_the_model_a_colour_model(tiles: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50, 3), dtype=np.uint8)).save(tiles / "colour.png")
    assert plan_of(job_of(tiles)).image_format.channels == 3


def test_a_sixteen_bit_folder_makes_a_sixteen_bit_model(tmp_path: Path) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 65536, (40, 30), dtype=np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels)
    job = job_of(tmp_path)
    plan = plan_of(job)
    data = load_training_data(job, plan)
    assert plan.image_format.bit_depth == 16
    assert data.pixels.dtype == np.uint16
    assert len(np.unique(data.pixels)) > 256  # the lower bits are still there


def test_broken_and_repeated_files_are_left_out_and_named(tiles: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = sorted(tiles.iterdir())
    (tiles / "text.png").write_text("not an image")
    (tiles / "half.jpg").write_bytes(some[0].read_bytes()[:2000])
    shutil.copy(some[0], tiles / "copy.jpg")
    job = job_of(tiles)
    data = load_training_data(job, plan_of(job))
    assert len(data.files) == len(some)
    assert {item.file.relative for item in data.failed} == {"text.png", "half.jpg"}
    assert "left out text.png" in caplog.text
    assert "byte-for-byte copies" in caplog.text
    assert len(set(data.sha256)) == len(data.sha256)


def test_unreadable_folder_says_the_most_frequent_reason(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_text("not an image")
    with pytest.raises(DataError, match=r"none of the 12 images looked at .* can be read; most often"):
        plan_of(job_of(tmp_path))


def test_decoded_once_and_again_when_a_file_changes(tiles: Path) -> None:
    job = job_of(tiles)
    plan = plan_of(job)
    first = load_training_data(job, plan)
    cache = Path(str(first.pixels.base.filename if hasattr(first.pixels.base, "filename") else first.pixels.filename))
    stamp = cache.stat().st_mtime_ns
    assert load_training_data(job, plan).digest == first.digest
    assert cache.stat().st_mtime_ns == stamp
    shutil.copy(
        MAGNETIC_TILE / "test" / "good" / sorted(p.name for p in (MAGNETIC_TILE / "test" / "good").iterdir())[0], tiles
    )
    changed = load_training_data(job, plan)
    assert changed.digest != first.digest
    assert len(changed.files) == len(first.files) + 1


def test_a_share_that_leaves_nothing_to_train_is_refused() -> None:
    with pytest.raises(DataError, match=r"8 to calibrate and 4 to select leave 0 to train, and at least 4 are needed"):
        split_by_content(digests(12), 0.7)


def test_a_file_that_failed_is_tried_again(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tiles)
    plan = plan_of(job)
    monkeypatch.setattr("pipelines.data.training_images.decode_for", _all_but_the_first)
    assert len(load_training_data(job, plan).failed) == 1
    monkeypatch.undo()
    monkeypatch.setenv("KINTSUGI_HOME", str(tiles.parent / "home"))
    assert load_training_data(job, plan).failed == ()


def test_a_training_names_files_that_are_not_read_once(tiles: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tiles / "a.nef").write_bytes(b"x")
    job = job_of(tiles)
    load_training_data(job, plan_of(job))
    line = "left out 1 file: 1 .nef (camera raw, which is not read); save the files that should be read as TIFF or PNG"
    assert caplog.messages.count(line) == 1


def test_a_damaged_file_costs_no_second_look_at_the_others(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiles / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    job = job_of(tiles)
    plan = plan_of(job)
    first = load_training_data(job, plan)
    opened: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read(path))
    assert load_training_data(job, plan).digest == first.digest
    assert opened == ["broken.jpg"]


def _all_but_the_first(files: list, form: ImageFormat):
    yield Failed(files[0], "Input/output error", None)
    yield from decode_for(files[1:], form)


@pytest.mark.parametrize(
    ("count", "calibrate", "select"), [(72, 18, 7), (200, 50, 20), (660, 99, 40), (5000, 750, 170)]
)
def test_no_more_is_kept_from_training_than_the_promise_needs(count: int, calibrate: int, select: int) -> None:
    split = split_by_content(digests(count))
    assert (len(split["calibrate"]), len(split["select"])) == (calibrate, select)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tiles)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"decoded images take 0\.0 GB under .*, and 0\.0 GB are free"):
        load_training_data(job, plan_of(job))


def test_the_oldest_caches_go_when_there_is_no_more_room(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = own_home / "cache" / "data"
    now = time.time()
    for name, days in {"oldest": 9, "old": 5, "held": 20, "today": 0.1}.items():
        folder = cache / name
        folder.mkdir(parents=True)
        (folder / "pixels.npy").write_bytes(bytes(1_000_000))
        (folder / "lock").touch()
        os.utime(folder / "lock", (now - days * 86_400, now - days * 86_400))
    monkeypatch.setenv("KINTSUGI_CACHE_GB", "0.0025")
    job = job_of(MAGNETIC_TILE / "train" / "good")
    with locked(cache / "held" / "lock"):
        load_training_data(job, plan_of(job))
    left = {file.parent.name for file in cache.glob("*/pixels.npy")}
    assert len(left) == 3
    assert {"held", "today"} < left
    assert not left & {"oldest", "old"}
    assert (cache / "old" / "lock").is_file()  # somebody may be waiting for it
