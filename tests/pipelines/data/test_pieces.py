"""Photographs of one piece stay together, and those that were separated all the same are named."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.file_digests import contents_of
from pipelines.data.pieces import announce_pieces, warn_of_crossing
from pipelines.data.plan import make_plan, survey
from pipelines.data.splits import split_by_content
from pipelines.data.training_images import load_training_data
from pipelines.errors import DataError, JobError
from pipelines.image_to_image import train
from pipelines.image_to_image.restorer import RestorerTraining
from pipelines.image_to_image.warm_start import hold_out_unseen
from pipelines.jobfile.job import Job, job_from_document
from pipelines.jobfile.piece_names import pieces_of
from pipelines.train import prepare
from pipelines.training.options import find_task
from pipelines.training.promotion import find_unseen


def job_of(folder: Path, **data: object) -> Job:
    document = {
        "name": "x", "task": "reconstruct", "data": {"train": str(folder / "good"), **data},
        "model": {"target": "pixels", "size": [32, 32], "stages": 2, "width": 4},
    }  # fmt: skip
    return job_from_document(document, folder / "job.toml")


def write_pieces(folder: Path, pieces: int, views: int, name: str = "good/p{piece}_view{view}.png") -> Path:
    """Photographs of pieces: some texture of its own each, shifted, lit and with noise otherwise in every view."""
    random = np.random.default_rng(0)
    for piece in range(pieces):
        coarse = random.normal(128, 40, (12, 12))
        texture = np.kron(coarse, np.ones((8, 8)))
        for view in range(views):
            shown = np.roll(texture, (view % 2, view % 3), axis=(0, 1)) + 3 * view + random.normal(0, 4, texture.shape)
            path = folder / name.format(piece=piece, view=view)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def digests(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


@pytest.mark.parametrize(
    ("rule", "names", "pieces"),
    [
        ("folders", ["p1/a.png", "p1/b.png", "x/p2/a.png"], ["p1", "p1", "x/p2"]),
        ("{piece}_*", ["p1_a.png", "p1_b_c.png", "day/p2_a.b.png"], ["p1", "p1", "p2"]),
        ("*_{piece}", ["cam_1_p1.png", "cam_2_p1.png"], ["p1", "p1"]),
        ("*_{piece}_*", ["cam1_p1_a.png", "cam2_p1_b.png"], ["p1", "p1"]),
        ("{piece}/*/*", ["p1/top/a.png", "p1/side/b.png", "p2/top/a.png"], ["p1", "p1", "p2"]),
        ("IMG-{piece}??", ["IMG-p01.png", "IMG-p02.png"], ["p", "p"]),
    ],
)
def test_the_piece_that_a_name_tells(rule: str, names: list[str], pieces: list[str]) -> None:
    assert pieces_of(names, rule) == pieces


def test_names_that_tell_no_piece_and_rules_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 3 images do not fit it \(a.png, c.png\): rename them"):
        pieces_of(["a.png", "b_1.png", "c.png"], "{piece}_*")
    with pytest.raises(DataError, match=r"1 of 2 images lie in no sub-folder \(a.png\): give each piece a folder"):
        pieces_of(["a.png", "p/b.png"], "folders")
    for wrong in ("pieces", "*_*", "{piece}{piece}", "{piece}*", "*{piece}_"):
        with pytest.raises(JobError, match=r"'data.group' is .*\{piece\}_\*"):
            job_of(tmp_path, group=wrong)


@pytest.mark.parametrize("count", [50, 400, 3000])
def test_all_images_of_a_piece_are_in_one_split(count: int) -> None:
    names, pieces = digests(count), [str(number // 5) for number in range(count)]
    split = split_by_content(names, None, pieces)
    of = {part: {pieces[index] for index in indices} for part, indices in split.items()}
    assert sorted(index for indices in split.values() for index in indices) == list(range(count))
    assert sum(map(len, of.values())) == len(set(pieces))  # of no piece in two of them
    alone = split_by_content(names)
    assert len(alone["calibrate"]) <= len(split["calibrate"]) < len(alone["calibrate"]) + 5
    order = np.random.default_rng(0).permutation(count)
    again = split_by_content([names[i] for i in order], None, [pieces[i] for i in order])
    for part in split:
        assert {names[i] for i in split[part]} == {names[order[i]] for i in again[part]}


def test_without_groups_the_split_is_what_it_was() -> None:
    order = sorted(range(100), key=lambda number: digests(100)[number])
    assert split_by_content(digests(100))["calibrate"] == tuple(sorted(order[:25]))


def test_too_few_pieces_are_refused_with_the_counts() -> None:
    pieces = [str(number // 10) for number in range(40)]
    told = r"40 images show 4 pieces .*: 2 pieces to calibrate and 1 piece to select leave 1 piece to train, and 2"
    with pytest.raises(DataError, match=told):
        split_by_content(digests(40), None, pieces)


def test_pieces_that_an_older_model_knows_are_kept_apart() -> None:
    class Older:
        trained_on = frozenset("a")
        ref = "older"

    pieces = ["1", "1", "2", "2", "3", "3"]
    assert find_unseen(Older(), [1, 2, 3], "abcdef", pieces) == [2, 3]
    split = {"train": (4, 5), "select": (1, 2), "calibrate": (0, 3)}
    assert hold_out_unseen(split, "abcdef", Older(), pieces) == {
        "train": (0, 1, 4, 5),
        "select": (2,),
        "calibrate": (3,),
    }


def test_a_training_splits_by_piece_and_says_how_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = job_of(write_pieces(tmp_path, 20, 4), group="{piece}_*")
    with caplog.at_level(logging.INFO):
        data = prepare(job).data
    of = {part: {data.files[i].relative.split("_")[0] for i in indices} for part, indices in data.split.items()}
    assert not of["calibrate"] & (of["train"] | of["select"])
    told = [record.getMessage() for record in caplog.records]
    assert any("20 pieces (data.group), images of each: 'p0' 4, 'p10' 4, 'p11' 4, ..." in line for line in told)
    assert any("5 to calibrate: the false-alarm rate rests on 5 pieces" in line for line in told)
    assert not any("look nearly like one that is trained on" in line for line in told)


def test_a_training_warns_when_photographs_of_one_piece_are_on_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(job_of(write_pieces(tmp_path, 20, 4)))
    told = [record.getMessage() for record in caplog.records]
    (line,) = (line for line in told if "look nearly like one that is trained on" in line)
    assert sum("'data.group' in the job file keeps them together" in other for other in told) == 1
    one, other = line.split("(")[1].split(")")[0].split(" and ")
    assert one.split("_")[0] == other.split("_")[0]


def test_a_rule_that_keeps_nothing_together_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_pieces(tmp_path, 20, 4, name="good/piece{piece}_view_{view}{piece}.png")
    prepare(job_of(folder, group="*_view_{piece}"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (alone,) = (line for line in warnings if "keeps nothing together" in line)
    assert alone.startswith("each of the 80 pieces has one image: data.group = '*_view_{piece}' keeps nothing together")
    (advice,) = (line for line in warnings if "'data.group'" in line)
    assert "'*_view_{piece}'" in advice
    assert "does not keep" in advice


def test_a_rule_that_keeps_images_together_raises_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    announce_pieces(["a", "a", "b", "c"], [0, 1], [2, 3], "{piece}_*")
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []


def test_weights_that_saw_images_which_are_held_out_now_are_not_gone_on_with(tmp_path: Path) -> None:
    """Somebody stops a training that warns of photographs of one piece, sets `data.group`, and starts it again."""
    write_pieces(tmp_path, 6, 2, name="good/p{piece}/view{view}.png")
    keys = []
    for group in ({}, {"group": "folders"}):
        document = {"name": "x", "task": "denoise", "data": {"train": str(tmp_path / "good"), **group}}
        job = job_from_document(document | {"train": {"steps": 3}}, tmp_path / "job.toml")
        keys.append(train.prepare(RestorerTraining(job)).key)
    assert keys[0] != keys[1]


def test_an_image_that_shows_another_piece_now_is_new(tmp_path: Path) -> None:
    folder = write_pieces(tmp_path, 6, 4, "good/p{piece}/{view}.png")
    grouped, alone = job_of(folder, group="folders"), job_of(folder)
    before = contents_of(grouped), contents_of(alone)
    shutil.move(folder / "good" / "p0" / "0.png", folder / "good" / "p1" / "other.png")
    assert len(contents_of(grouped) - before[0]) == 1
    data = load_training_data(grouped, make_plan(grouped, find_task(grouped), survey(grouped)))
    assert sorted(set(data.pieces)) == [f"p{number}" for number in range(6)]


@pytest.mark.parametrize("kind", ["different", "one object", "two kinds", "noise alone"])
def test_different_images_are_no_twins(kind: str) -> None:
    random = np.random.default_rng(1)
    base = np.kron(random.normal(128, 40, (8, 8)), np.ones((8, 8)))
    wave = 40 * np.sin(np.arange(64) / 9)[:, None]

    def image(index: int) -> NDArray[np.float64]:
        own = np.random.default_rng(index)
        variation = np.kron(own.normal(0, 15, (8, 8)), np.ones((8, 8)))
        noise = own.normal(0, 4, base.shape)
        return {
            "different": np.kron(own.normal(128, 40, (8, 8)), np.ones((8, 8))),
            "one object": base + variation + noise,
            "two kinds": base + variation + noise + (index % 2) * wave,
            "noise alone": base + noise,
        }[kind][..., None]

    assert warn_of_crossing(image, [""] * 200, range(50), range(50, 200), group=None) == 0


def test_digits_of_ten_kinds_raise_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    from sklearn.datasets import load_digits

    images = load_digits().images[..., None] * 15
    names = [""] * len(images)
    warn_of_crossing(lambda index: images[index], names, range(0, 1797, 5), range(1, 1797, 5), group=None)
    assert not caplog.records
