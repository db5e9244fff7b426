"""Small pictures of one thing are judged as a whole: by what they show, without heat maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from pipelines.data.plan import make_plan, survey
from pipelines.evaluate import evaluate_model
from pipelines.jobfile.job import Job, job_from_document
from pipelines.train import train_model
from pipelines.training.options import find_task


def picture(shape: str, random: np.random.Generator, side: int = 28) -> Image.Image:
    """A bright disc or cross somewhere on a dark ground."""
    made = Image.new("L", (side, side), 20)
    x, y, r = (int(value) for value in (random.integers(11, 17), random.integers(11, 17), random.integers(6, 9)))
    draw, bright = ImageDraw.Draw(made), int(random.integers(150, 250))
    if shape == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=bright)
    else:
        draw.line((x - r, y - r, x + r, y + r), fill=bright, width=3)
        draw.line((x - r, y + r, x + r, y - r), fill=bright, width=3)
    return made


def write(folder: Path, shape: str, count: int, seed: int, side: int = 28) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        picture(shape, random, side).save(folder / f"{number}.png")


def job_of(folder: Path, **model: object) -> Job:
    document = {
        "name": "discs", "task": "reconstruct", "data": {"train": str(folder)}, "model": model,
        "train": {"steps": 60},
    }  # fmt: skip
    return job_from_document(document, folder / "job.toml")


@pytest.mark.parametrize(
    ("side", "model", "chosen"),
    [(28, {}, "whole"), (47, {}, "whole"), (48, {}, "features"), (28, {"strides": [16]}, "features"),
     (28, {"target": "pixels"}, "pixels"), (28, {"levels": 2}, "features"),
     *((28, asked, "features") for asked in ({"vae": "linear"}, {"stages": 2}, {"experts": []}, {"size": 256})),
     (28, {"likelihood": "laplace"}, "features"), (100, {"target": "whole"}, "whole")],
)  # fmt: skip
def test_what_is_chosen(tmp_path: Path, side: int, model: dict, chosen: str) -> None:
    write(tmp_path / "good", "disc", 3, 0, side)
    job = job_of(tmp_path / "good", **model)
    assert make_plan(job, find_task(job), survey(job)).target_name == chosen


def test_another_thing_is_found_and_no_heat_map_is_drawn(tmp_path: Path, own_home: Path) -> None:
    write(tmp_path / "train", "disc", 120, 0)
    write(tmp_path / "set" / "test" / "good", "disc", 20, 1)
    write(tmp_path / "set" / "test" / "cross", "cross", 20, 2)
    train_model(job_of(tmp_path / "train"))
    masks = tmp_path / "set" / "ground_truth" / "cross"
    masks.mkdir(parents=True)
    for number in range(20):
        Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(masks / f"{number}.png")
    out = tmp_path / "out"
    figures = evaluate_model(tmp_path / "set", "discs", out=out, false_alarms=0.2)
    assert figures["image_auroc"] > 0.97
    assert figures["pixel_auroc"] is figures["aupro"] is None
    assert not list((out / "maps").rglob("*.png"))
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert sum(row["is_anomaly"] for row in rows) >= 15
    assert {row["regions"] for row in rows} == {None}
    assert "The model judges each image as a whole" in (out / "report.html").read_text(encoding="utf-8")
