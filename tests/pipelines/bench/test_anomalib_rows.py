"""What anomalib is given: names and weights from which timm makes the same network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from pipelines.bench import anomalib_environment
from pipelines.bench.anomalib_environment import EnvironmentFailedError, ensure_anomalib, python_of
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


def test_a_failed_installation_says_what_uv_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'no such registry' >&2\nexit 7\n")
    uv.chmod(0o755)
    monkeypatch.setattr(anomalib_environment, "_uv", lambda: str(uv))
    with pytest.raises(EnvironmentFailedError, match=r"no such registry.*patchcore_own"):
        ensure_anomalib(tmp_path / "environments")


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nmkdir -p {python_of(tmp_path / "e").parent}\n')
    uv.chmod(0o755)
    monkeypatch.setattr(anomalib_environment, "_uv", lambda: str(uv))
    assert ensure_anomalib(tmp_path / "e") == ensure_anomalib(tmp_path / "e") == python_of(tmp_path / "e")
    made, installed = calls.read_text().splitlines()
    assert made.startswith("venv")
    assert f"torch=={torch.__version__.partition('+')[0]}" in installed


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
