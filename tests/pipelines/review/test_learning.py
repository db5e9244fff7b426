"""What people answer changes the next version: images train or leave, audits judge, and the trail names why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from PIL import Image

from pipelines.images import OUTPUT_MARKER
from pipelines.jobfile.job import Job, job_from_document
from pipelines.jobfile.tables import PromoteTable
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.registry.resolve import find_model
from pipelines.review.answers import Answer, Answers, answers_file
from pipelines.review.run import ReviewedRun
from pipelines.review.uses import audited_images, read_answers
from pipelines.score import score_folder
from pipelines.train import train_model
from pipelines.training.need import need_of
from pipelines.training.promotion import decide

if TYPE_CHECKING:
    from pipelines.data.training_images import TrainingData

TABLES = {
    "model": {"target": "pixels", "size": 32, "stages": 2, "width": 4, "latent_channels": 4},
    "train": {"steps": 30, "batch": 8},
}


def draw(folder: Path, count: int, seed: int, *, marked: int = 0) -> None:
    """Stripes with noise; the last ones have a bright mark."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = 100 + 20 * np.sin(np.arange(32) / 2)[None] + random.normal(0, 6, (32, 32))
        if number >= count - marked:
            pixels[8:16, 8:16] = 250
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    draw(tmp_path / "good", 60, 0)
    draw(tmp_path / "day", 60, 1, marked=20)
    return tmp_path


def job_of(home: Path, **review: bool) -> Job:
    document = {"name": "stripes", "task": "reconstruct", "data": {"train": str(home / "good")}, **TABLES}
    return job_from_document(document | {"review": review, "retrain": {"answers": 5}}, home / "job.toml")


def say(run: ReviewedRun, numbers: list[int], queue: str, answers: Answers) -> None:
    """Answer by the truth."""
    for number in numbers:
        image = run.image(number)
        verdict = "defect" if int(Path(image.path).stem) >= 40 else "good"
        known = {"sha256": image.sha256, "path": image.path, "run": run.name, "model": "stripes"}
        answers.add(Answer(queue=queue, verdict=verdict, **known))  # type: ignore[arg-type]


def test_answers_change_what_is_trained_on_and_who_judges(home: Path) -> None:
    train_model(job_of(home))
    score_folder(home / "day", "stripes@champion", home / "out")
    run, answers = ReviewedRun(home / "out"), Answers(answers_file())
    good = [number for number in run.numbers.tolist() if int(Path(run.image(number).path).stem) < 40]
    say(run, good[:8], "teach", answers)
    audited = [number for number in run.order("audit").tolist() if number not in good[:8]]
    say(run, audited, "audit", answers)
    bad = sorted((home / "good").iterdir())[3]
    answers.add(Answer(sha256=sha256_of(bad), path="003.png", run=run.name, queue="teach", verdict="defect"))

    assert not need_of(job_of(home)).train
    job = job_of(home, train=True, judge=True)
    assert need_of(job).reason == "9 answers about images are new since stripes/1"
    made = train_model(job)
    assert "on audited images (20 defective, 32 good)" in made.reason
    model = find_model("stripes/2")
    taught = {run.sha256(number) for number in good[:8]}
    assert model.answered == taught | {sha256_of(bad)}
    assert taught <= model.trained_on
    split = json.loads((model.folder / "split.json").read_text())
    assert not (taught | {sha256_of(bad)}) & {*split["calibrate"], *split["select"]}
    assert sha256_of(bad) not in model.trained_on
    assert "8 more images train, and calibrate nothing; 1 of the folder are left out" in read_card(model)
    assert not need_of(job).train


def read_card(model: ModelFile) -> str:
    return (model.folder / "card.md").read_text(encoding="utf-8")


def test_few_audited_images_do_not_judge(home: Path) -> None:
    train_model(job_of(home))
    score_folder(home / "day", "stripes@champion", home / "out")
    assert (home / "out" / OUTPUT_MARKER).exists()
    run = ReviewedRun(home / "out")
    say(run, run.order("audit").tolist()[:12], "audit", Answers(answers_file()))
    draw(home / "good" / "more", 12, 5)
    assert "AUROC on synthetic defects" in train_model(job_of(home, judge=True)).reason


def test_audited_images_judge_where_no_held_out_image_is_left(home: Path) -> None:
    """Models in closed form are fitted to every good image: a retraining on the same folder has none to compare on."""
    train_model(job_of(home))
    score_folder(home / "day", "stripes@champion", home / "out")
    run, model = ReviewedRun(home / "out"), find_model("stripes/1")
    none_left = cast("TrainingData", SimpleNamespace(files=[], split={"select": []}, sha256=[], pieces=[]))
    asked = (model, model, none_left, PromoteTable(), 0.05)
    few = decide(*asked, audited_images("stripes", read_answers()))
    assert (few.promote, "no image is left to compare" in few.reason) == (False, True)
    say(run, run.order("audit").tolist(), "audit", Answers(answers_file()))
    enough = decide(*asked, audited_images("stripes", read_answers()))
    assert enough.promote
    assert "on audited images (20 defective, 40 good)" in enough.reason
    assert "its false alarms were not measured" in enough.reason
