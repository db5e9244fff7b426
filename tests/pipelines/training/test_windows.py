"""A model of windows, from training to report: small defects in large images, the same rule in calibration and use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import STATISTICS
from pipelines.data.examples import make_examples
from pipelines.embed import embed_folder
from pipelines.errors import ModelError
from pipelines.evaluate import evaluate_model
from pipelines.images.windows import Windows
from pipelines.jobfile.job import Job, job_from_document
from pipelines.models.gallery import Gallery
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.score import score_folder
from pipelines.train import prepare, train_model
from pipelines.training.closed_form import train_closed_form
from pipelines.training.weights import load_network
from vaecore.representations import Features

IMAGES, HEIGHT, WIDTH = 26, 150, 200
DIGEST = "0" * 64


def draw(folder: Path, count: int, seed: int, *, marked: bool = False) -> dict[str, tuple[int, int]]:
    """A brushed ground that begins anywhere; marked: with a dot of six pixels, whose place is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    random, places = np.random.default_rng(seed), {}
    x = np.arange(WIDTH)[None]
    for number in range(count):
        pixels = 110 + 14 * np.sin(x / 3 + random.uniform(0, 6)) + random.normal(0, 5, (HEIGHT, WIDTH))
        if marked:
            row, column = (int(random.integers(8, side - 14)) for side in (HEIGHT, WIDTH))
            pixels[row : row + 6, column : column + 6] = 225
            places[f"{number:03}.png"] = (row, column)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    return places


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("windows")
    draw(folder / "good", IMAGES, 0)
    draw(folder / "set" / "test" / "good", 10, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def dots(home: Path) -> dict[str, tuple[int, int]]:
    places = draw(home / "set" / "test" / "dot", 10, 2, marked=True)
    for name, (row, column) in places.items():
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[row : row + 6, column : column + 6] = 255
        (home / "set" / "ground_truth" / "dot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(home / "set" / "ground_truth" / "dot" / name)
    return places


def job_of(home: Path, **tables: dict) -> Job:
    document = {"name": "sheets", "task": "reconstruct", "data": {"train": str(home / "good")}, **tables}
    return job_from_document(document | {"model": {"windows": True, "size": 64}}, home / "job.toml")


@pytest.fixture(scope="module")
def model(home: Path):
    train_model(job_of(home))
    return find_model("sheets@champion")


def test_metadata_card_and_calibration_say_windows(model) -> None:
    metadata, calibration = Session(model, device="cpu").metadata, model.calibration()
    assert (metadata.format, metadata.size, metadata.window_overlap) == (2, (64, 64), 16)
    assert "highest window" in metadata.score
    assert "mean over an image's windows" in metadata.outputs["elbo"]
    assert "in windows of 64 x 64 pixels" in model.card
    assert calibration.kind == "cross"
    assert calibration.n == metadata.images["train"]  # images, not windows
    assert set(calibration.statistics) == set(STATISTICS) - {"rate", "distortion"}  # the bound of folds is another
    windows = HEIGHT * WIDTH / 64**2
    assert calibration.places.places == pytest.approx(calibration.n * windows * np.prod(metadata.places), rel=0.01)
    assert calibration.local_share == pytest.approx(1e-3 / windows)
    assert Gallery.of(model).names


def test_an_image_scores_as_the_highest_of_its_windows(home: Path, model) -> None:
    session = Session(model, device="cpu", threads=1, calls=2)
    with Image.open(home / "good" / "000.png") as image:
        pixels = np.asarray(image)[None, ..., None]
    found = session.run(pixels, [DIGEST], ("score", "elbo", "anomaly_map", "expert_score", "embedding"))
    windows = Windows.over((HEIGHT, WIDTH), (64, 64), 16)
    cuts = [pixels[:, top : top + 64, left : left + 64] for top, left in windows.places]
    alone = [session.run_graph(cut, [DIGEST], ("score", "elbo")) for cut in cuts]
    assert found["score"][0] == max(float(each["score"][0]) for each in alone)
    assert found["elbo"][0] == pytest.approx(np.mean([each["elbo"][0] for each in alone]), rel=1e-5)
    assert found["anomaly_map"].shape == (1, HEIGHT, WIDTH)
    both = session.run(np.concatenate([pixels[:, ::-1], pixels]), [DIGEST] * 2, ("score", "anomaly_map"))
    assert both["score"][1] == found["score"][0]
    assert np.array_equal(both["anomaly_map"][1], found["anomaly_map"][0])


def test_folds_score_whole_images_as_the_file_does_but_have_not_seen_them(home: Path) -> None:
    """Scores under a fold's graph, by the session's rule; and they do not change where the image's windows do."""
    prepared = prepare(job_of(home))
    features, data, plan = prepared.representation, prepared.data, prepared.plan
    assert isinstance(features, Features)
    examples, train = make_examples(data, plan.image_format, features), data.split["train"]
    owners = data.image_of[list(examples.split["train"])]
    assert set(owners.tolist()) == set(train)
    assert len(owners) == len(train) * len(Windows.over((HEIGHT, WIDTH), (64, 64), 16).places)
    asked = train[:4]
    held = train_closed_form(examples, data, plan, features, "places", calibrate=asked).held_out
    assert set(held.indices) == set(asked)
    assert all(each.shape == (-(-HEIGHT // 8), -(-WIDTH // 8)) for each in held.maps)
    assert torch.isfinite(torch.tensor(held.scores)).all()
    assert torch.allclose(held.elbo.value, -(held.elbo.rate + held.elbo.distortion))


def test_small_defects_are_found_and_outlined_where_they_are(home: Path, model, dots, rows_of) -> None:
    figures = evaluate_model(home / "set", str(model.path), json_path=home / "f.json", out=home / "out")
    assert figures["image_auroc"] > 0.95
    assert figures["pixel_auroc"] > 0.95
    assert figures["n_good"] == figures["n_bad"] == 10
    assert figures["quantities"]["elbo"]["image_auroc"] is not None
    flagged = [row for row in rows_of(home / "out") if row["path"].startswith("dot/") and row["is_anomaly"]]
    assert len(flagged) >= 8
    hits = 0
    for row in flagged:
        top, left = dots[row["path"].removeprefix("dot/")]
        assert (home / "out" / "maps" / f"{row['path']}.png").is_file()
        near = row["largest_y"] is not None and np.hypot(row["largest_y"] - top - 3, row["largest_x"] - left - 3) < 12
        hits += bool(near)
        assert row["regions_percent"] is None or row["regions_percent"] < 10
    assert hits >= 0.8 * len(flagged)
    assert (home / "out" / "report.html").is_file()


def test_rows_do_not_depend_on_order_or_company(home: Path, model, dots, rows_of, tmp_path: Path) -> None:
    score_folder(home / "set" / "test", model.path, tmp_path / "all")
    alone = tmp_path / "images"
    alone.mkdir()
    name = sorted(dots)[0]
    (alone / name).write_bytes((home / "set" / "test" / "dot" / name).read_bytes())
    score_folder(alone, model.path, tmp_path / "alone")
    among = {row["path"]: row for row in rows_of(tmp_path / "all")}[f"dot/{name}"]
    (row,) = rows_of(tmp_path / "alone")
    assert [row[key] for key in ("score", "elbo", "largest_x")] == [
        among[key] for key in ("score", "elbo", "largest_x")
    ]
    run = json.loads((tmp_path / "all" / "run.json").read_text())
    assert run["heat"]["level"] == pytest.approx(Calibration.load(
        model.folder / "calibration.json", model_sha256=model.sha256).local_share, rel=0.01)  # fmt: skip


def test_an_image_smaller_than_a_window_has_a_score_and_a_note(home: Path, model, rows_of, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with Image.open(home / "good" / "000.png") as whole:
        whole.crop((0, 0, 100, 40)).save(tmp_path / "images" / "small.png")
        whole.crop((0, 0, 64, 64)).save(tmp_path / "images" / "window.png")
    score_folder(tmp_path / "images", model.path, tmp_path / "out", all_maps=True)
    small, window = rows_of(tmp_path / "out")
    assert small["note"] == "100 x 40 pixels do not fill the model's window of 64 x 64: mirrored until they do"
    assert window["note"] is None
    assert small["score"] < model.calibration().scores[-1] + 2  # a good piece is not abnormal for being small
    with Image.open(tmp_path / "out" / "maps" / "small.png.png") as drawn:
        assert drawn.size == (100, 40)


def test_embeddings_are_there_and_what_needs_the_whole_image_is_refused(home: Path, model, tmp_path: Path) -> None:
    summary = embed_folder(home / "good", str(model.path), tmp_path / "e.parquet")
    assert summary.ok == IMAGES
    with pytest.raises(ModelError, match=r"is a model of windows: its network cannot take a whole image"):
        load_network(model)
