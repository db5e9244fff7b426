"""What anomalib is given: names and weights from which timm makes the same network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from pipelines.bench.anomalib_rows import RUNNER, _architecture, _layers, _run
from vaecore.representations.backbones import Backbone


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
