"""A model's weights make the network again that the exported graph holds, and nothing else does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import ModelError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.evaluation.regret import measure_regret
from pipelines.images import OUTPUT_MARKER, find_images
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import WEIGHTS_FILE, ModelFile, sha256_of
from pipelines.models.session import Session, keyed_noise
from pipelines.train import train_model
from pipelines.training.weights import load_network


def file_of(bundle: Path) -> ModelFile:
    path = bundle / "model.onnx"
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))


def elbos(file: ModelFile) -> tuple[float, float]:
    """Of one image: by the exported graph, and by the network that the weights make."""
    session, graph = Session(file, device="cpu"), load_network(file)
    image = next(iter(decode_for(find_images(MAGNETIC_TILE / "test" / "crack"), session.metadata)))
    noise = keyed_noise(image.sha256, (session.metadata.samples, *session.metadata.latent_shape))
    with torch.no_grad():
        maps = graph.bound(graph.to_y(torch.from_numpy(np.array(image.pixels[None]))), torch.from_numpy(noise[None]))
    return float(session.run(image.pixels[None], [image.sha256], ("elbo",))["elbo"][0]), float(maps.total().value[0])


def test_regrets_that_were_found_are_kept_when_the_run_is_stopped(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("test/good", "test/crack"):
        shutil.copytree(MAGNETIC_TILE / part, tmp_path / part)
    fitted: list[torch.Tensor] = []

    def stopped_after_five(network: object, y: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        if len(fitted) == 5:
            raise KeyboardInterrupt
        fitted.append(y)
        return torch.full((1,), 20.0 + len(fitted))

    out = tmp_path / "out"
    monkeypatch.setattr("pipelines.evaluation.regret.likelihood_regret", stopped_after_five)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(tmp_path, trained.model, regret=True, out=out)
    assert len(kept_regrets(out)) == 5
    monkeypatch.setattr("pipelines.evaluation.regret.likelihood_regret", lambda *_, **__: torch.ones(1))
    caplog.set_level("INFO")
    first = kept_regrets(out)
    evaluate_model(tmp_path, trained.model, regret=True, out=out)
    assert any(line.startswith("likelihood regret of 16 images, 5 of them known") for line in caplog.messages)
    assert len(kept_regrets(out)) == 16
    assert kept_regrets(out).items() >= first.items()
    assert sum(value > 0.01 for value in kept_regrets(out).values()) == 5
    monkeypatch.setattr("pipelines.evaluation.regret.likelihood_regret", lambda *_, **__: torch.full((1,), 2.0))
    evaluate_model(tmp_path, trained.model, regret=True, out=out, fresh=True)
    assert len(set(kept_regrets(out).values())) == 1
    monkeypatch.setattr("pipelines.evaluation.regret.likelihood_regret", lambda *_, **__: torch.ones(1))

    # Those of another model file do not count.
    graph, images = load_network(file_of(trained.bundle)), find_images(tmp_path / "test" / "good")
    files = {sha256_of(image.path): image for image in images}
    again = measure_regret(graph, files, kept=out / OUTPUT_MARKER / "regret.json", model_sha256="0" * 64)
    assert set(again.values()) == {1 / graph.representation.dims}


def kept_regrets(out: Path) -> dict[str, float]:
    return dict(json.loads((out / OUTPUT_MARKER / "regret.json").read_text())["regrets"])


def test_the_network_is_the_one_that_was_exported(trained) -> None:
    exported, again = elbos(file_of(trained.bundle))
    assert again == pytest.approx(exported, rel=1e-5)


def test_with_features_two_levels_and_one_brightness(tiles: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'name = "t"\ntask = "reconstruct"\n[data]\ntrain = "{tiles}"\n[model]\ntarget = "features"\nsize = 64\n'
        'levels = 2\nscore = "ratio"\nlikelihood = "shared_gaussian"\nstandardise = true\nwidth = 8\n'
        "latent_channels = 4\n[train]\nsteps = 3\n"
    )
    train_model(job)
    bundle = next((tmp_path / "home" / "models").glob("*/model.onnx")).parent
    metadata = Session(file_of(bundle), device="cpu").metadata
    assert (metadata.standardised, metadata.smooth, metadata.corruption, metadata.stages) == (True, True, "noise", 1)
    exported, again = elbos(file_of(bundle))
    assert again == pytest.approx(exported, rel=1e-4)


def test_weights_that_do_not_belong_are_refused(trained, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    weights, file = bundle / WEIGHTS_FILE, file_of(bundle)
    tensors = load_file(weights)
    save_file(tensors, weights, metadata={"model_sha256": "0" * 64, "backbone": ""})
    with pytest.raises(ModelError, match="does not belong to the model file"):
        load_network(file)
    save_file(tensors, weights, metadata={"model_sha256": file.sha256, "backbone": "0" * 64})
    with pytest.raises(ModelError, match="the backbone's weights are not those"):
        load_network(file)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is damaged"):
        load_network(file)
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no weights\.safetensors beside it"):
        load_network(file)
    with pytest.raises(ModelError, match=r"has no weights\.safetensors beside it"):  # before anything is scored
        evaluate_model(MAGNETIC_TILE, file.path, regret=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_network_than_the_exported_one_is_noticed(trained, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    weights, file = bundle / WEIGHTS_FILE, file_of(bundle)
    tensors, facts = load_file(weights), {"model_sha256": file.sha256, "backbone": ""}
    name = next(name for name in tensors if name.endswith("weight"))
    save_file(tensors | {name: 2 * tensors[name]}, weights, metadata=facts)
    with pytest.raises(ModelError, match="makes another network of the weights"):
        load_network(file)
    save_file(tensors | {name: tensors[name][:1].clone()}, weights, metadata=facts)
    with pytest.raises(ModelError, match="builds a different network from"):
        load_network(file)


def test_evaluation_by_regret(trained, tmp_path: Path) -> None:
    for part in ("test/good", "test/crack"):
        shutil.copytree(MAGNETIC_TILE / part, tmp_path / part)
    figures = evaluate_model(tmp_path, trained.model, regret=True, json_path=tmp_path / "figures.json")
    assert set(figures["quantities"]) == {"elbo", "distortion", "rate", "regret"}
    images = {sha256_of(image.path): image for image in find_images(tmp_path / "test")}
    values = measure_regret(load_network(file_of(trained.bundle)), images)
    assert len(values) == 16
    bad = [not images[digest].relative.startswith("good/") for digest in values]
    expected = roc_auc_score(bad, list(values.values()))
    assert figures["quantities"]["regret"]["image_auroc"] == pytest.approx(expected)
    assert any("regret" in line for line in describe_evaluation(figures))
    stored = json.loads((tmp_path / "figures.json").read_text())
    assert stored["quantities"] == figures["quantities"]
