"""Models that tell classes of images, and reject what is of none."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipelines.data.classes import check_classes, classes_of
from pipelines.errors import DataError, JobError, ModelError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.evaluation.probe import evaluate_probe
from pipelines.evaluation.reliability import calibration_error, count_by_confidence
from pipelines.images import find_images
from pipelines.jobfile.job import load_job
from pipelines.models.model_file import ModelFile
from pipelines.registry.resolve import find_model
from pipelines.sample import sample_images
from pipelines.score import score_folder
from pipelines.train import _work_key, prepare, train_model
from pipelines.training.promotion import _compare_classes

JOB = """
name = "bars"
task = "reconstruct"
[data]
train = "train"
[model]
target = "pixels"
size = [16, 16]
latent_channels = 4
stages = 2
width = 8
classes = "folders"
[train]
steps = 250
batch = 16
learning_rate = 4e-3
corruption = "none"
"""


def draw(folder: Path, kind: str, count: int, seed: int) -> None:
    """Bars across, bars down, or noise, each somewhere."""
    (folder / kind).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.normal(60, 4, (16, 16))
        at = random.integers(4, 9)
        if kind == "across":
            pixels[at : at + 3] += 120
        elif kind == "down":
            pixels[:, at : at + 3] += 120
        else:
            pixels = random.uniform(0, 255, (16, 16))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / kind / f"{number}.png")


@pytest.fixture
def job(tmp_path: Path, own_home: Path) -> Path:
    draw(tmp_path / "train", "across", 60, 0)
    draw(tmp_path / "train", "down", 60, 1)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


def test_sub_folders_are_classes(
    job: Path, tmp_path: Path, rows_of: Callable[[Path], list[dict]], caplog: pytest.LogCaptureFixture
) -> None:
    """Trained, told apart, rejected, evaluated, sampled, and compared with the next version: one model does it all."""
    trained = train_model(job)
    assert trained.figures["challenger_accuracy"] == 1
    card = (find_model("bars@champion").folder / "card.md").read_text()
    assert "tells 2 classes (`across`, `down`)" in card
    assert "a normal distribution for each of 2 classes" in card

    test = tmp_path / "test"
    draw(test, "across", 15, 2)
    draw(test, "down", 15, 3)
    draw(test, "noise", 10, 4)
    (test / "broken.png").write_bytes(b"no image")
    score_folder(test, "bars@champion", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows if row["path"].startswith("across")] == ["across"] * 15
    assert [row["label"] for row in rows if row["path"].startswith("down")] == ["down"] * 15
    assert all(0.5 <= row["label_probability"] <= 1 for row in rows if row["status"] == "ok")
    assert all(row["is_anomaly"] for row in rows if row["path"].startswith("noise"))
    assert [(row["label"], row["label_probability"]) for row in rows if row["status"] == "failed"] == [(None, None)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<section id="classes"' in page
    assert "nearest class: " in page

    figures = evaluate_model(test, "bars@champion", json_path=tmp_path / "figures.json")
    assert figures["accuracy"] == figures["balanced_accuracy"] == 1
    assert figures["rejection_auroc"] == figures["rejected_other"] == 1
    assert figures["confusion"] == {"across": {"across": 15, "down": 0}, "down": {"across": 0, "down": 15}}
    assert (figures["n_known"], figures["n_other"], figures["n_failed"]) == (30, 10, 1)
    assert json.loads((tmp_path / "figures.json").read_text())["ece"] == figures["ece"]
    assert "100.0 % of 10 images of no known class" in "\n".join(describe_evaluation(figures))
    draw(tmp_path / "others", "noise", 3, 0)
    with pytest.raises(DataError, match="sub-folders noise; classes across, down"):
        evaluate_model(tmp_path / "others", "bars@champion")
    (tmp_path / "others" / "noise").rename(tmp_path / "others" / "Down")
    with pytest.raises(DataError, match="sub-folders Down; classes across, down"):
        evaluate_model(tmp_path / "others", "bars@champion")
    assert "sub-folder 'Down' is not the class 'down': its images count as images of no class" in caplog.text

    sample_images("bars@champion", 8, tmp_path / "samples", label="down")
    with pytest.raises(ModelError, match="its classes are across, down"):
        sample_images("bars@champion", 8, tmp_path / "samples", label="cat")

    swapped = tmp_path / "train" / "swapped"  # the next version learns from wrong labels
    (tmp_path / "train" / "across").rename(swapped)
    (tmp_path / "train" / "down").rename(tmp_path / "train" / "across")
    swapped.rename(tmp_path / "train" / "down")
    again = train_model(load_job(job, ["train.steps=1", "promote.tolerance=0.7"]))
    assert again.figures["champion_accuracy"] == 0  # of labels that are the other way round now
    assert again.promoted
    job.write_text(JOB.replace('classes = "folders"', ""))
    blind = train_model(load_job(job, ["train.steps=1", "promote.tolerance=1"]))
    assert not blind.promoted
    assert "it knows no class across, down, which the champion tells" in blind.reason


def test_a_challenger_is_worse_at_classes_only_where_chance_does_not_explain_it() -> None:
    def compared(both: int, lost: int, won: int) -> bool:
        mine, theirs = [True] * both + [False] * lost + [True] * won, [True] * (both + lost) + [False] * won
        told = _compare_classes({"a": mine, "b": []}, {"a": theirs}, 0.0)
        assert told is not None
        return told.lost

    assert not compared(both=7, lost=3, won=0)  # one of eight, by chance
    assert compared(both=7, lost=5, won=0)  # 1 of 32
    assert not compared(both=100, lost=12, won=6)  # 0.12
    assert compared(both=100, lost=30, won=10)
    assert _compare_classes({}, {}, 0.0) is None


def test_checkpoints_belong_to_classes_and_labels(job: Path) -> None:
    key = _work_key(prepare(load_job(job)))
    assert key == _work_key(prepare(load_job(job)))
    train = job.parent / "train"
    (train / "down" / "0.png").rename(train / "across" / "moved.png")
    moved = _work_key(prepare(load_job(job)))
    (train / "down").rename(train / "sideways")
    assert len({key, moved, _work_key(prepare(load_job(job)))}) == 3


def test_a_linear_probe_learns_from_few_images(job: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Of a model whose embedding is the class; no class is lost by chance, however few there are."""
    folder = job.parent / "train"
    classes = {hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name for path in folder.rglob("*.png")}

    class Known:
        metadata = SimpleNamespace(channels=1, bit_depth=8, size=(16, 16), value_range=(0, 255))

        def __init__(self, *_: object, **__: object) -> None:
            """Take anything."""

        def run(self, pixels: np.ndarray, digests: list[str], outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
            down = classes[digests[0]] == "down"
            return {outputs[0]: np.array([[down, len(pixels)]], np.float32)}

    monkeypatch.setattr("pipelines.evaluation.probe.Session", Known)
    file = ModelFile(job.parent / "model.onnx", "0" * 64, "bars/1")
    file.path.touch()
    (job.parent / "split.json").write_text(json.dumps({"train": list(classes)[:2]}))
    figures = evaluate_probe(folder, file, 10)
    assert figures["probe"]["latents"]["accuracy"] == 1 > figures["probe"]["pixels"]["accuracy"] > 0.4
    assert (figures["n_images"], figures["n_trained_on"], figures["classes"]) == (120, 2, 2)
    assert "2 of 120 images were trained on" in caplog.text
    for path in list((folder / "down").iterdir())[:54]:
        path.unlink()
    with pytest.raises(DataError, match="10 labelled images would be fewer than 2 of class down: ask for 22 or more"):
        evaluate_probe(folder, file, 10)
    with pytest.raises(DataError, match="66 readable images are too few to learn from 60"):
        evaluate_probe(folder, file, 60)
    for path in list((folder / "down").iterdir())[:3]:
        path.unlink()
    with pytest.raises(DataError, match="class down has 3 readable images, and 4 are needed"):
        evaluate_probe(folder, file, 20)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('model.classes=["a", "b"]', 'it is "folders"'),
        ("model.classes=yes", 'give "folders"'),
        ("model.prior=vamp", "a prior of its own: leave 'model.prior' out"),
        ("model.levels=2", "a prior of its own: leave 'model.levels' out"),
        ("train.objective=iwae", None),
    ],
)
def test_what_does_not_go_together_is_told(job: Path, option: str, message: str | None) -> None:
    if message is None:
        load_job(job, [option])
        return
    with pytest.raises(JobError, match=message):
        train_model(load_job(job, [option]))


def test_a_weight_of_labels_needs_classes(job: Path) -> None:
    job.write_text(JOB.replace('classes = "folders"', ""))
    with pytest.raises(JobError, match=r"label_weight.* has no meaning without"):
        train_model(load_job(job, ["train.label_weight=2"]))


def test_each_image_needs_a_class_and_each_class_images(tmp_path: Path) -> None:
    draw(tmp_path, "across", 5, 0)
    with pytest.raises(DataError, match="has 1 sub-folders with images"):
        classes_of(find_images(tmp_path), tmp_path)
    draw(tmp_path, "down", 3, 0)
    assert classes_of(find_images(tmp_path), tmp_path) == (("across", "down"), (0,) * 5 + (1,) * 3)
    with pytest.raises(DataError, match="fewer than 4 images to train on in down"):
        check_classes(("across", "down"), [0] * 5 + [1] * 3)
    shutil.copy(tmp_path / "down" / "0.png", tmp_path / "loose.png")
    with pytest.raises(DataError, match="1 of 9 images lie in"):
        classes_of(find_images(tmp_path), tmp_path)


def test_calibration_error_adds_up_over_parts() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 10_000)
    honest = count_by_confidence(sure, random.uniform(size=10_000) < sure)
    assert calibration_error(honest) < 0.02
    boasting = count_by_confidence(sure, random.uniform(size=10_000) < sure - 0.2)
    assert calibration_error(boasting) == pytest.approx(0.2, abs=0.02)
    parts = count_by_confidence(sure[:10], np.ones(10, bool)) + count_by_confidence(sure[10:20], np.ones(10, bool))
    np.testing.assert_allclose(parts, count_by_confidence(sure[:20], np.ones(20, bool)))
