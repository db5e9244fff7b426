"""PixelCNN: a density that sums to one, that looks at no later value, and is scored as every bound is."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from vaecore.bound import bound_maps, elbo, iwae
from vaecore.graphs.export import export_scoring
from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods import BernoulliLikelihood, DiscretisedLogisticLikelihood, GaussianLikelihood
from vaecore.networks import MaskedNetwork, PixelCNN
from vaecore.representations import Pixels
from vaecore.representations.image_format import ImageFormat


def awake(module: torch.nn.Module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def pixel_cnn(size: tuple[int, int] = (3, 3), channels: int = 1, levels: int = 1) -> PixelCNN:
    torch.manual_seed(0)
    likelihood = BernoulliLikelihood() if levels == 1 else DiscretisedLogisticLikelihood(levels + 1)
    return awake(PixelCNN(channels=channels, size=size, likelihood=likelihood, levels=levels, width=8, layers=2))


def log_p(model: PixelCNN, y: torch.Tensor) -> torch.Tensor:
    return elbo(model, y, torch.zeros(len(y), 1, *model.latent_shape)).value


@torch.no_grad()
def test_the_probabilities_of_all_images_sum_to_one() -> None:
    """All 2^9 binary images of 3 x 3 pixels, and all 4^4 of 2 x 1 pixels with two channels of four levels."""
    y = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9))).view(-1, 1, 3, 3)
    log_prob = log_p(pixel_cnn(), y).double()
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(log_prob.std()) > 0.5, "not all images are as likely as each other"
    y = torch.tensor(list(itertools.product((0.0, 1 / 3, 2 / 3, 1.0), repeat=4))).view(-1, 2, 2, 1)
    assert float(log_p(pixel_cnn((2, 1), 2, 3), y).double().exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("channels", "kernel", "layers"), [(1, 3, 2), (3, 3, 5), (2, 5, 0)])
def test_a_value_depends_on_all_before_it_and_on_no_other(channels: int, kernel: int, layers: int) -> None:
    """By gradients, in the order of reading; there is no blind spot, where the receptive field reaches everywhere."""
    torch.manual_seed(0)
    height, width, parameters = 4, 5, 2
    network = awake(MaskedNetwork(channels, parameters, width=8, layers=layers, kernel=kernel)).double()
    x = torch.randn(1, channels, height, width, requires_grad=True, dtype=torch.float64)
    made = network(x).unflatten(1, (parameters, channels)).movedim(2, -1)[0]  # P, h, w, C: the order of reading
    for index in range(height * width * channels):
        gradient = sum(torch.autograd.grad(one.flatten()[index], x, retain_graph=True)[0].abs() for one in made)
        seen = gradient[0].movedim(0, -1).flatten() > 0
        assert not seen[index:].any(), "it depends on itself, or on what is later"
        if layers == 5:
            assert seen[:index].all(), "it overlooks something that is earlier"


@pytest.mark.parametrize(("channels", "kernel", "layers"), [(1, 3, 2), (3, 3, 5), (2, 5, 3), (2, 3, 0)])
@torch.no_grad()
def test_value_after_value_it_finds_what_one_pass_finds(channels: int, kernel: int, layers: int) -> None:
    """Drawing remembers rows and columns, and gives each value the parameters that the whole would give it."""
    torch.manual_seed(0)
    network, seen = awake(MaskedNetwork(channels, 2, width=8, layers=layers, kernel=kernel)).double(), []

    def draw(parameters: torch.Tensor) -> torch.Tensor:
        seen.append(parameters.flatten(1))
        return torch.randn(3, 1, 1, 1).double()

    x = network.fill(torch.zeros(3, channels, 5, 4).double(), draw)
    whole = network(x).unflatten(1, (2, channels)).movedim(2, -1).flatten(2)  # B, P, the order of reading
    torch.testing.assert_close(torch.stack(seen, dim=-1), whole)


@torch.no_grad()
def test_samples_are_as_frequent_as_they_are_probable() -> None:
    model, seen = pixel_cnn((2, 2)), []
    drawn = model.sample_prior(20_000, torch.Generator().manual_seed(0), lambda rows, y: seen.append((rows, y.clone())))
    code = (drawn.flatten(1) * torch.tensor([8.0, 4.0, 2.0, 1.0])).sum(1).long()
    frequency = torch.bincount(code, minlength=16) / len(drawn)
    y = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    probability = log_p(model, y).exp()
    error = (probability * (1 - probability) / len(drawn)).sqrt()
    assert ((frequency - probability).abs() < 4.5 * error).all()
    assert [rows for rows, _ in seen] == [1, 2]
    assert torch.equal(seen[0][1][:, :, 0], drawn[:, :, 0]), "a row that is there stays"
    assert torch.equal(seen[1][1], drawn)


@torch.no_grad()
def test_it_is_a_bound_without_a_rate_that_noise_does_not_change() -> None:
    model, y = pixel_cnn((4, 4)), torch.randint(0, 2, (3, 1, 4, 4)).float()
    one, other = (bound_maps(model, y, torch.randn(3, 2, 1, 4, 4)) for _ in range(2))
    assert torch.equal(one.distortion, other.distortion)
    assert not one.kl.any()
    torch.testing.assert_close(one.total().value, log_p(model, y))
    with pytest.raises(TypeError, match="known exactly"):
        iwae(model, y, torch.randn(3, 2, 1, 4, 4))
    with pytest.raises(ValueError, match="GaussianLikelihood is continuous"):
        PixelCNN(channels=1, size=(4, 4), likelihood=GaussianLikelihood(), levels=255)


def test_the_exported_file_agrees_and_its_map_sums_to_minus_log_p(tmp_path: Path) -> None:
    model = pixel_cnn((8, 8), levels=255)
    graph = ScoringGraph(model, ImageFormat(channels=1, bit_depth=8), Pixels(channels=1, size=(8, 8), levels=255))
    export_scoring(graph.eval(), tmp_path / "model.onnx", {})
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    noise = np.zeros((3, 1, *model.latent_shape), np.float32)
    with torch.inference_mode():
        here = graph(torch.from_numpy(image), torch.from_numpy(noise))
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    there = dict(zip(graph.outputs, session.run(list(graph.outputs), {"image": image, "noise": noise}), strict=True))
    for name in ("elbo", "rate", "distortion", "score", "anomaly_map"):
        np.testing.assert_allclose(there[name], here[name].numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(there["anomaly_map"].sum(axis=(1, 2)), -there["elbo"], rtol=1e-4)
    with torch.no_grad():
        exact = log_p(model, torch.from_numpy(image).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(there["elbo"], exact.numpy(), rtol=1e-4)


def test_it_learns_stripes() -> None:
    """Columns are all black or all white: half the bits are free, once the first row is known."""
    torch.manual_seed(0)
    model = PixelCNN(channels=1, size=(4, 4), likelihood=BernoulliLikelihood(), levels=1, width=16, layers=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        y = torch.randint(0, 2, (64, 1, 1, 4)).float().expand(-1, -1, 4, -1)
        optimiser.zero_grad()
        (-log_p(model, y).mean()).backward()
        optimiser.step()
    y = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 1, 4).expand(-1, -1, 4, -1)
    with torch.no_grad():
        bits = float(-log_p(model, y).mean()) / math.log(2)
    assert 4 <= bits < 4.2  # sixteen images, all as likely as each other, cannot cost less
