"""What anomalib is given: names and weights from which timm makes the same network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from pipelines.bench import anomalib_rows
from pipelines.bench.anomalib_rows import RUNNER, _architecture, _layers, _run, measure_anomalib
from pipelines.bench.question import read_question
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.images import find_images
from vaecore.representations.backbones import Backbone

STAND_IN = """
import timm, torch
from types import SimpleNamespace

class Extractor(torch.nn.Module):
    def __init__(self, backbone, layers):
        super().__init__()
        names = [fact["module"] for fact in timm.create_model(backbone, features_only=True).feature_info.info]
        places = [names.index(name) for name in layers]
        self.feature_extractor = timm.create_model(
            backbone, features_only=True, exportable=True, out_indices=places
        ).eval()

    def forward(self, images):
        return dict(enumerate(self.feature_extractor(images)))

class Model(torch.nn.Module):
    def __init__(self, *, backbone, layers, pre_trained, **_):
        super().__init__()
        self.feature_extractor = Extractor(backbone, layers)
        self.seen = []

    def train(self, mode=True):
        self.training = mode
        return self

    def fit(self):
        pass

    def forward(self, images):
        maps = images.mean(1, keepdim=True)
        if self.training:
            self.seen += list(maps)
        new = torch.stack([min((each - other).abs().mean() for other in self.seen) > 0.02 for each in maps])
        return SimpleNamespace(pred_score=torch.where(new, maps.amax((1, 2, 3)), -9), anomaly_map=maps)

PadimModel = PatchcoreModel = Model
"""
"""Its models' interface; the score is the brightest pixel, or -9 of an image that it was fitted to."""


@pytest.mark.parametrize(("kind", "n_train", "n_calibrate"), [("cross", 18, 18), ("split", 11, 5)])
def test_a_row_is_scored_and_calibrated(
    kind: str, n_train: int, n_calibrate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in ("padim", "patchcore"):
        folder = tmp_path / "site" / "anomalib" / "models" / "image" / rule
        folder.mkdir(parents=True)
        (folder / "torch_model.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(anomalib_rows, "find_anomalib", lambda _: Path(sys.executable))
    question = read_question(
        {
            "method": "padim", "seed": 0, "name": "padim", "train": str(MAGNETIC_TILE / "train" / "good"),
            "test": str(MAGNETIC_TILE), "half": "all", "max_train": 20,
            "overrides": ["model.size=[64, 64]", f"calibrate.kind={kind}"],
            "work": str(tmp_path), "anomalib_home": str(tmp_path),
        }
    )  # fmt: skip
    found = measure_anomalib(question)
    assert list(found["scores"]) == [file.relative for file in find_images(MAGNETIC_TILE / "test")]
    assert len(set(found["scores"].values())) > 10
    assert (found["n_train"], len(found["calibration"])) == (n_train, n_calibrate)
    assert min(found["calibration"]) > -9  # of models that have not seen the image
    threshold = max(found["calibration"])
    flagged = [score > threshold for path, score in found["scores"].items() if path.startswith("good/")]
    assert found["figures"]["fpr_at_threshold"] == sum(flagged) / len(flagged)


def test_the_names_lead_to_the_same_features() -> None:
    backbone = Backbone(strides=(8, 16))
    layers = _layers(backbone)
    assert len(layers) == 2
    # As anomalib does it: positions by the layers' names, then the network, then our weights.
    names = [
        fact["module"] for fact in timm.create_model(_architecture(backbone), features_only=True).feature_info.info
    ]
    network = timm.create_model(
        _architecture(backbone), features_only=True, exportable=True, out_indices=[names.index(name) for name in layers]
    )
    network.load_state_dict(backbone.network.state_dict())
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mine, theirs in zip(backbone(image), network.eval()((image - backbone.mean) / backbone.std), strict=True):
            assert (mine - theirs).abs().max() < 1e-4 * mine.abs().max()


def test_the_script_needs_nothing_of_ours(tmp_path: Path) -> None:
    """It is run by another interpreter: an import of ours would only be missed there."""
    modules = "import ast, sys; print(*{name.split('.')[0] for node in ast.walk(ast.parse(open(sys.argv[1]).read()))"
    modules += " for name in ([node.module] if isinstance(node, ast.ImportFrom) else"
    modules += " [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])})"
    said = subprocess.run([sys.executable, "-c", modules, RUNNER], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) - set(sys.stdlib_module_names) == {"anomalib", "numpy", "safetensors", "torch"}


def test_the_scripts_last_words_are_the_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run(Path(sys.executable), tmp_path)  # an environment without anomalib
    assert capfd.readouterr().err.splitlines()[-1].startswith("ModuleNotFoundError: No module named 'anomalib'")
