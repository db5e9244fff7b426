"""The restoration graph: torch and ONNX Runtime agree at sizes it was not exported at, channels stay last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vaecore.export import export_restoration
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.restoration import OUTPUTS, RestorationGraph


@pytest.mark.parametrize(("channels", "upscale"), [(3, 1), (1, 2), (3, 3)])
def test_torch_and_onnx_runtime_agree(channels: int, upscale: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Restorer(channels=channels, outputs=channels, widths=(8, 12, 16), blocks=(1, 1, 1), upscale=upscale)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    graph = RestorationGraph(network, GaussianLikelihood(), torch.linspace(0.5, 2, channels)).eval()
    path = tmp_path / "model.onnx"
    export_restoration(graph, path, {"task": "x"})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count, rows, columns in ((1, 1, 1), (3, 5, 2), (2, 9, 13)):
        shape = (count, rows * network.multiple, columns * network.multiple, channels)
        image = np.random.default_rng(0).random(shape, dtype=np.float32)
        found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": image}), strict=True))
        with torch.no_grad():
            expected = graph(torch.from_numpy(image))
        for name in OUTPUTS:
            assert found[name].shape == (count, shape[1] * upscale, shape[2] * upscale, channels)
            np.testing.assert_allclose(found[name], expected[name].numpy(), rtol=1e-3, atol=1e-4)


def test_the_factor_widens_the_scale_of_its_channel_only() -> None:
    network, image = Restorer(channels=3, outputs=3, widths=(8, 12), blocks=(1, 1)), torch.rand(1, 8, 8, 3)
    plain = RestorationGraph(network, GaussianLikelihood())(image)
    wide = RestorationGraph(network, GaussianLikelihood(), torch.tensor([1.0, 3.0, 1.0]))(image)
    assert torch.equal(plain["restored"], wide["restored"])
    torch.testing.assert_close(
        wide["restored_scale"] / plain["restored_scale"], torch.tensor([1.0, 3, 1]).expand(1, 8, 8, 3)
    )
