"""Every kind of model that scores does what such models do: the next kind is one more parameter. None is trained."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines import embed_folder
from pipelines.data.plan import Plan
from pipelines.explore import explore_model
from pipelines.images import find_images
from pipelines.jobfile.job import load_job
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.score import score_folder
from pipelines.training.bundle import check_parity, describe, write_job
from pipelines.training.network import build_network, build_representation, gather_circumstances
from pipelines.training.options import find_prior, find_score_kind, find_task
from pipelines.training.weights import load_network, write_weights
from vaecore.graphs.export import export_scoring
from vaecore.graphs.scoring import ScoringGraph
from vaecore.priors import all_priors
from vaecore.representations import Features
from vaecore.representations.image_format import ImageFormat

PIXELS = 'target = "pixels"\nsize = [16, 16]\nstages = 2\nwidth = 4\n'
VECTOR = f'{PIXELS}latent = "vector"\n'


@dataclass(frozen=True)
class Kind:
    """A table [model] of a job file, and what is true of the model."""

    table: str
    channels: int = 1
    bit_depth: int = 8
    pictures: bool = True
    prior: bool = True
    map: bool = False
    classes: tuple[str, ...] = ()


KINDS = {
    "standard": Kind(f'{PIXELS}latent = "grid"\nlatent_channels = 3\n', channels=3, bit_depth=16),
    "two latents": Kind(f'{VECTOR}latent_channels = 2\nlikelihood = "bernoulli"\n', map=True),
    **{
        f"prior {name}": Kind(
            f'{VECTOR}latent_channels = 2\nprior = "{name}"\n{"components = 3" * prior.components}\n',
            prior=prior.density,
            map=True,
        )
        for name, prior in all_priors().items()
    },
    "autoregressive on a grid": Kind(
        f'{PIXELS}latent = "grid"\nlatent_channels = 3\nprior = "autoregressive"\n', channels=3
    ),
    "classes": Kind(f'{VECTOR}latent_channels = 2\nclasses = "folders"\n', map=True, classes=("0", "1")),
    "classes of features": Kind(
        'target = "features"\nsize = 64\nstages = 1\nwidth = 8\nlatent_channels = 4\nclasses = "folders"\n',
        pictures=False,
        classes=("0", "1"),
    ),
    "levels": Kind(f'{PIXELS}latent = "grid"\nlatent_channels = 3\nlevels = 2\n', channels=3),
    "features": Kind('target = "features"\nsize = 64\nstages = 1\nwidth = 8\nlatent_channels = 4\n', pictures=False),
}


def untrained(kind: Kind, folder: Path) -> tuple[ModelFile, ScoringGraph]:
    """The bundle of a model as it is before training."""
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "x.toml").write_text(
        f'name = "x"\ntask = "reconstruct"\n[data]\ntrain = "."\n[model]\nsamples = 2\n{kind.table}'
    )
    job = load_job(folder / "x.toml")
    target = find_task(job).targets[job.model.target or ""]
    plan = Plan(
        image_format=ImageFormat(channels=kind.channels, bit_depth=kind.bit_depth),
        target_name=job.model.target or "",
        target=target,
        size=(64, 64) if target.features else (16, 16),
        stages=job.model.stages or 0,
        strides=target.deep_strides if target.features else (1,),
    )
    representation = build_representation(job, plan, standardise=False)
    if isinstance(representation, Features):
        images = torch.rand(4, kind.channels, 64, 64)
        representation.standardise([representation.extract(images)])
    model = build_network(job, plan, representation, classes=len(kind.classes))
    for parameter in model.parameters():  # away from the zero start of the residual blocks
        torch.nn.init.normal_(parameter, std=0.1)
    if (finish := find_prior(job).finish) is not None:
        model = finish(model, [torch.rand(8, kind.channels, 16, 16)], gather_circumstances(job, representation))
    graph = ScoringGraph(
        model, plan.image_format, representation, kind="ratio" if find_score_kind(job, plan) == "ratio" else "elbo"
    ).eval()
    data = SimpleNamespace(digest="0" * 64, split={"train": [0]}, classes=kind.classes)
    metadata = describe(job, plan, data, graph, "none")
    export_scoring(graph, folder / "model.onnx", metadata.model_dump(mode="json"))
    file = ModelFile(folder / "model.onnx", sha256_of(folder / "model.onnx"), str(folder / "model.onnx"))
    write_job(folder, job)
    write_weights(file, graph)
    return file, graph


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A kind, its model file, the graph that it was made of, and images for it in two sub-folders."""
    kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp("kind")
    generator = np.random.default_rng(0)
    for number in range(14):
        (folder / "images" / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        sides = (20, 16) if number else (33, 40)
        shape = sides if kind.channels == 1 else (*sides, 3)
        pixels = generator.integers(0, 256, shape).astype(np.uint8)
        pixels[4:12, number % 5 : number % 5 + 6] = 250
        Image.fromarray(pixels).save(folder / "images" / f"{number % 2}" / f"{number}.png")
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG")
    return kind, *untrained(kind, folder / "model"), folder / "images"


def test_it_is_exported_and_read_back_as_it_was(made) -> None:
    _, file, graph, images = made
    check_parity(file, graph, find_images(images / "0"))
    again = load_network(file)  # compares it with the exported file
    assert again.network.latent_shape == graph.network.latent_shape


def test_it_scores_a_folder(made, tmp_path: Path) -> None:
    kind, file, _, images = made
    result = score_folder(images, file, tmp_path / "out")
    assert (result.ok, result.failed) == (14, 1)
    rows = [row for row in pq.read_table(result.out / "results.parquet").to_pylist() if row["status"] == "ok"]
    assert all(row["elbo"] == pytest.approx(-row["rate"] - row["distortion"], rel=1e-4) for row in rows)
    assert (max(abs(row["rate"]) for row in rows) > 0) == kind.prior
    assert {row["label"] for row in rows} <= {*kind.classes} if kind.classes else {None}


def test_it_embeds_a_folder(made, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kind, file, graph, images = made
    with caplog.at_level(logging.WARNING):
        summary = embed_folder(images, file, tmp_path / "e.parquet")
    assert (summary.ok, summary.failed, summary.latents) == (14, 1, graph.network.latent_shape[0])
    assert not [text for text in caplog.messages if "embedding_scale" in text]
    rows = [row for row in pq.read_table(tmp_path / "e.parquet").to_pylist() if row["status"] == "ok"]
    assert (min(min(row["embedding_scale"]) for row in rows) > 0) == kind.prior
    assert all(row["nearest_distance"] > 0 for row in rows)
    assert summary.metric.unit.startswith("posterior" if kind.prior else "standard deviations over")


def page_of(path: Path) -> tuple[str, set[str]]:
    """The page, and the sections that show something."""
    html = path.read_text("utf-8")
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address.startswith(("data:", "#")), "the page loads something"
    assert "style=" not in html.replace("page_style", ""), "its policy forbids style attributes"
    found = re.findall(r'<section id="(\w+)".*?</section>', html, re.DOTALL)
    shown = {
        name
        for name in found
        if re.search(
            rf'<section id="{name}"(?:(?!</section>).)*(?:<img class="sheet|<svg|class="merit)', html, re.DOTALL
        )
    }
    return html, shown


def test_it_is_explored_without_images(made, tmp_path: Path) -> None:
    kind, file, _, _ = made
    summary = explore_model(file.path, tmp_path / "out")
    html, shown = page_of(summary.page)
    assert "--images FOLDER" in html
    assert ("samples" in shown) == ("moved" in shown) == (kind.pictures and kind.prior)
    assert ("maps" in shown) == (kind.map and kind.prior)
    assert html.count("works on features of images") == (not kind.pictures)
    assert shown <= {"samples", "maps", "moved"}
    assert "rate" not in json.loads((tmp_path / "out" / "explore.json").read_text())


def test_it_is_explored_with_images(made, tmp_path: Path) -> None:
    kind, file, graph, images = made
    summary = explore_model(file.path, tmp_path / "out", images=images)
    assert (summary.files, summary.failed) == (15, 1)
    html, shown = page_of(summary.page)
    assert {"images", "use", "judged"} <= shown
    assert ("moved" in shown) == ("between" in shown) == kind.pictures
    assert ("maps" in shown) == kind.map
    assert ("apart" in shown) == kind.prior
    assert ("samples" in shown) == (kind.pictures and kind.prior)
    assert "broken.png" in html
    assert len(html) < 4e6
    numbers = json.loads((tmp_path / "out" / "explore.json").read_text())
    latents = int(np.prod(graph.network.latent_shape))
    assert len(numbers["latents"]) == len(numbers["variance_of_mean"]) == latents
    assert numbers["active"] == sum(value > 0.01 for value in numbers["variance_of_mean"])
    assert (numbers["rate"] is None) == (numbers["kl_images_to_prior"] is None) == (not kind.prior)
    assert ("each of 2 classes" in numbers["prior"]) == bool(kind.classes)
    assert numbers["images"]["failed"].keys() == {"broken.png"}
