"""Models that mend side by side: rows of one run, and operations as torch itself counts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from flows.cli import app
from pipelines.bench.restoration import SIDE, bench_restoration, count_operations
from pipelines.errors import DataError
from pipelines.models.model_file import ModelFile, RestorationMetadata, sha256_of
from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer


def model(folder: Path, *, task: str = "denoise", scale: int = 1, width: int = 8) -> tuple[ModelFile, RestorationGraph]:
    network = Restorer(channels=1, outputs=1, widths=(width, 12), blocks=(1, 1), upscale=scale)
    graph = RestorationGraph(network, GaussianLikelihood()).eval()
    metadata = RestorationMetadata(
        name="m", task=task, summary="Mends.", channels=1, bit_depth=8, value_range=(0, 1),
        size_multiple=network.multiple, halo=network.halo, likelihood="gaussian", outputs=OUTPUTS, licence=None,
        git_commit=None, data_digest="", images={"train": 9}, kintsugi="0", scale=scale,
        damage="bicubic" if scale > 1 else "gaussian", level="sigma", strengths=(20.0, 20.0),
        levels=(float(scale),) if scale > 1 else (20.0,), luma=scale > 1, intervals={"0.5": 0.67},
    )  # fmt: skip
    folder.mkdir()
    path = folder / "model.onnx"
    export_restoration(graph, path, metadata.model_dump(mode="json"))
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path)), graph


@pytest.mark.parametrize("scale", [1, 2])
def test_operations_are_those_that_torch_counts(scale: int, tmp_path: Path) -> None:
    file, graph = model(tmp_path / "m", task="super_resolution" if scale > 1 else "denoise", scale=scale)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(torch.zeros((1, SIDE, SIDE, 1)))
    assert count_operations(file) == pytest.approx(counter.get_total_flops() / 2 / (SIDE * scale) ** 2)


def test_one_table_for_each_level(own_home: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    Image.fromarray(ramp).save(photos / "ramp.png")
    (one, _), (other, _) = model(tmp_path / "one"), model(tmp_path / "other", width=16)
    out = tmp_path / "out"
    done = bench_restoration(photos, out, models=[one.ref, other.ref], levels=["10", "30"], classical="tv")
    assert done.failed == 0
    tables = done.text.split("\n\nlevel ")
    assert len(tables) == 2
    for table in tables:
        names = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][1:]
        assert sorted(names) == sorted([one.ref, other.ref, "input", "tv"])
    assert (out / "bench.md").read_text().strip() == done.text
    kept = json.loads((out / "bench.json").read_text())
    assert kept["models"][other.ref]["operations"] > kept["models"][one.ref]["operations"]
    asked = ["bench", "restore", str(photos), "--model", one.ref, "--out", str(out), "--levels", "10"]
    told = CliRunner().invoke(app, [*asked, "--classical", "none"])
    assert told.exit_code == 0, told.output
    assert "level 10, 1 images" in told.output


def test_models_of_different_tasks_are_not_compared(own_home: Path, tmp_path: Path) -> None:
    (one, _), (other, _) = model(tmp_path / "one"), model(tmp_path / "other", task="super_resolution", scale=2)
    with pytest.raises(DataError, match="have different tasks"):
        bench_restoration(tmp_path, tmp_path / "out", models=[one.ref, other.ref])
