"""The restoration graph: torch and ONNX Runtime agree at sizes it was not exported at, channels stay last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph, psnr, restoration_loss
from vaecore.likelihoods import Gaussian, GaussianLikelihood
from vaecore.networks import Restorer


@pytest.mark.parametrize(("channels", "upscale"), [(3, 1), (1, 2), (3, 3)])
def test_torch_and_onnx_runtime_agree(channels: int, upscale: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Restorer(channels=channels, outputs=channels, widths=(8, 12, 16), blocks=(1, 1, 1), upscale=upscale)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    graph = RestorationGraph(network, GaussianLikelihood(), torch.linspace(0.5, 2, channels), 0.9).eval()
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
    factor = torch.tensor([1.0, 3.0, 1.0])
    wide = RestorationGraph(network, GaussianLikelihood(), factor)(image)
    bent = RestorationGraph(network, GaussianLikelihood(), factor, 0.8)(image)
    torch.testing.assert_close(bent["restored_scale"], plain["restored_scale"] ** 0.8 * factor)
    assert torch.equal(plain["restored"], wide["restored"])
    torch.testing.assert_close(
        wide["restored_scale"] / plain["restored_scale"], torch.tensor([1.0, 3, 1]).expand(1, 8, 8, 3)
    )


def test_the_mean_s_loss_knows_nothing_of_the_scale() -> None:
    y, mean = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8, requires_grad=True)
    gradients = []
    for log_scale in (torch.full((2, 3, 8, 8), -3.0), torch.zeros(2, 3, 8, 8)):
        (gradient,) = torch.autograd.grad(restoration_loss(Gaussian(mean, log_scale), y), mean)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_the_best_scale_is_the_root_of_the_mean_squared_error() -> None:
    y, mean = torch.randn(1, 1, 200, 200), torch.zeros(1, 1, 200, 200)
    losses = [restoration_loss(Gaussian(mean, torch.tensor(scale).log()), y * 0.1) for scale in (0.09, 0.1, 0.11)]
    assert losses[1] < min(losses[0], losses[2])


def test_psnr_is_scikit_image_s() -> None:
    y, restored = torch.rand(3, 3, 20, 30), torch.rand(3, 3, 20, 30) * 1.4 - 0.2
    for each, image, other in zip(psnr(restored, y), y, restored.clamp(0, 1), strict=True):
        assert float(each) == pytest.approx(
            peak_signal_noise_ratio(image.numpy(), other.numpy(), data_range=1), abs=1e-4
        )
    assert psnr(y, y).tolist() == [100, 100, 100]
