"""Figures of a model that mends: known damage gives known figures, the same in every folder and at every call."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pipelines.evaluation.restorer as evaluate_restorer_module
from pipelines.data.crop_images import load_crop_images
from pipelines.data.known_images import check_leakage
from pipelines.errors import DataError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.evaluation.restorer import evaluate_restorer
from pipelines.images import find_images
from pipelines.models.model_file import ModelFile, RestorationMetadata, sha256_of
from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph
from vaecore.likelihoods import GaussianLikelihood
from vaecore.likelihoods.gaussian import HALF_LEVEL
from vaecore.networks import Restorer
from vaecore.representations.image_format import ImageFormat

SIGMA = 20.0
QUANTILES = {"0.5": 0.6745, "0.68": 0.9945, "0.9": 1.6449, "0.95": 1.96}


def untrained(folder: Path, *, task: str = "denoise", scale: int = 1) -> ModelFile:
    """Changes nothing, and predicts the scale of the noise: then all figures are known."""
    network = Restorer(channels=3, outputs=3, widths=(8, 12), blocks=(1, 1), upscale=scale)
    above = math.log(SIGMA / 255) - math.log(HALF_LEVEL)  # the bound from below moves scales a little
    torch.nn.init.constant_(network.scale[2].bias, math.log(HALF_LEVEL) + math.log(math.expm1(above)))
    metadata = RestorationMetadata(
        name="mender", task=task, summary="Mends.", channels=3, bit_depth=8, value_range=(0, 1),
        size_multiple=network.multiple, halo=network.halo, likelihood="gaussian", outputs=OUTPUTS, licence=None,
        git_commit=None, data_digest="", images={"train": 9}, kintsugi="0", scale=scale,
        damage="bicubic" if scale > 1 else "gaussian", level="sigma", strengths=(SIGMA, SIGMA),
        levels=(float(scale),) if scale > 1 else (SIGMA,), luma=scale > 1, intervals=QUANTILES,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    export_restoration(RestorationGraph(network, GaussianLikelihood()).eval(), path, metadata.model_dump(mode="json"))
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "photos"
    folder.mkdir()
    rows, columns = np.mgrid[0:95, 0:121]
    for number in range(3):
        across = np.stack([np.cos(columns / period) for period in (5, 9, 13)], axis=2)
        waves = 128 + 40 * np.sin((rows + number) / 7)[..., None] * across
        Image.fromarray(waves.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_known_noise_gives_known_figures(photos: Path, tmp_path: Path) -> None:
    figures = evaluate_model(photos, untrained(tmp_path / "m").path, json_path=tmp_path / "f.json")
    level = figures["levels"]["20"]
    assert level["psnr"] == pytest.approx(20 * math.log10(255 / SIGMA), abs=0.1)
    assert level["baselines"]["input"]["psnr"] == level["psnr"]
    assert level["seconds"] > 0
    assert level["nll"] == pytest.approx(math.log(SIGMA / 255) + 0.5 * math.log(2 * math.pi * math.e), abs=0.02)
    assert level["constant_nll"] == pytest.approx(level["nll"], abs=0.02)
    for share, found in level["coverage"].items():
        assert found == pytest.approx(float(share), abs=0.01)
    assert len(level["per_image"]) == figures["n_images"] == 3
    assert level["files"]["psnr"] == pytest.approx(level["psnr"], abs=0.1)  # nothing here is near black or white
    assert json.loads((tmp_path / "f.json").read_text()) == figures
    assert any("PSNR 22.1" in line for line in describe_evaluation(figures))


def test_figures_repeat_and_other_levels_may_be_asked_for(photos: Path, tmp_path: Path) -> None:
    model = untrained(tmp_path / "m")
    first = evaluate_restorer(photos, model, levels=["10", "20"])
    second = evaluate_restorer(photos, model, levels=["20"])
    for one, other in zip(first["levels"]["20"]["per_image"], second["levels"]["20"]["per_image"], strict=True):
        assert (one["path"], one["psnr"], one["ssim"]) == (other["path"], other["psnr"], other["ssim"])
    assert first["levels"]["10"]["psnr"] > first["levels"]["20"]["psnr"] + 5


def test_what_was_evaluated_on_is_never_trained_on(photos: Path, tmp_path: Path) -> None:
    loaded = load_crop_images(find_images(photos), ImageFormat(channels=3, bit_depth=8))
    check_leakage(loaded)
    evaluate_restorer(photos, untrained(tmp_path / "m"))
    with pytest.raises(DataError, match="training images are test images: 3 of the test images in"):
        check_leakage(loaded)


def test_enlarging_begins_at_the_bicubic_row(photos: Path, tmp_path: Path) -> None:
    model = untrained(tmp_path / "m", task="super_resolution", scale=2)
    level = evaluate_restorer(photos, model)["levels"]["2"]
    assert level["psnr"] == pytest.approx(level["baselines"]["input"]["psnr"], abs=0.05)  # 95 x 121 is cut to 94 x 120
    with pytest.raises(DataError, match="level 3: sigma, from 2 to 2"):
        evaluate_restorer(photos, model, levels=["3"])


def test_classical_methods_are_rows_beside_the_model(photos: Path, tmp_path: Path) -> None:
    model = untrained(tmp_path / "m")
    level = evaluate_restorer(photos, model, classical=["tv", "nlm"])["levels"]["20"]
    for name in ("tv", "nlm"):
        assert level["baselines"][name]["psnr"] > level["psnr"] + 3
    with pytest.raises(DataError, match=r"no classical method 'magic' for .*; there are: all, tv, nlm"):
        evaluate_restorer(photos, model, classical=["magic"])


def test_files_hold_no_noise_below_black(photos: Path, tmp_path: Path) -> None:
    dark = tmp_path / "dark"
    dark.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(dark / "0.png")
    level = evaluate_restorer(dark, untrained(tmp_path / "m"))["levels"]["20"]
    assert level["coverage"]["0.95"] == pytest.approx(0.95, abs=0.01)
    assert level["files"]["coverage"]["0.5"] > 0.7  # half of the noise is clipped, and gone


@pytest.mark.parametrize("level", ["-25", "nan", "1e9", "much"])
def test_levels_that_the_task_has_not(photos: Path, tmp_path: Path, level: str) -> None:
    with pytest.raises(DataError, match="level"):
        evaluate_restorer(photos, untrained(tmp_path / "m"), levels=[level])


def test_images_that_were_trained_on_are_told_and_not_kept_from_training(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = untrained(tmp_path / "m")
    loaded = load_crop_images(find_images(photos), ImageFormat(channels=3, bit_depth=8))
    (model.folder / "split.json").write_text(json.dumps({"train": list(loaded.pixel_sha256)}))
    figures = evaluate_restorer(photos, model)
    assert figures["n_trained_on"] == 3
    assert "3 of 3 images were trained on" in caplog.text
    check_leakage(loaded)


def test_a_grey_image_has_one_noise(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the file of one has, in all three channels that a model of colour images is given."""
    seen = []

    def compare(restored: np.ndarray, clean: np.ndarray, **_: object) -> dict[str, float]:
        seen.append((restored == restored[..., :1]).all() and not (restored == clean).all())
        return {"psnr": 0.0, "ssim": 0.0}

    monkeypatch.setattr(evaluate_restorer_module, "compare", compare)
    (grey := tmp_path / "grey").mkdir()
    for path in photos.iterdir():
        Image.open(path).convert("L").save(grey / path.name)
    evaluate_restorer(grey, untrained(tmp_path / "m"))
    assert seen
    assert all(seen)
