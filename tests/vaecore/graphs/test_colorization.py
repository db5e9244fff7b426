"""Colours from luma: the transforms, the guided filter, the bound, and the exported graph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage.color import rgb2ycbcr

from vaecore.bound import elbo, iwae
from vaecore.graphs.colorization import (
    ColorizationGraph,
    along_edges,
    colorization_loss,
    colourfulness,
    to_chroma,
    to_colours,
    to_luma,
)
from vaecore.graphs.export import export_colorization
from vaecore.networks import Colorizer
from vaecore.representations.backbones import Backbone
from vaecore.representations.image_format import resize

SIDE = 64


@pytest.fixture(scope="module")
def network() -> Colorizer:
    torch.manual_seed(0)
    found = Colorizer(Backbone(strides=(4, 8, 16, 32)), latent_channels=3, widths=(8, 8, 12, 16))
    for layer in (found.head, found.tint):  # they start at nothing, which would hide all that is before them
        torch.nn.init.normal_(layer.weight, std=0.05)
    return found.eval()


def pair(batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = resize(torch.rand((batch, 3, 8, 8), generator=generator), (SIDE, SIDE))
    return to_luma(y), resize(to_chroma(y), (SIDE // 4, SIDE // 4))


def test_colours_come_back_and_luma_stays() -> None:
    image = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_colours(to_luma(image), to_chroma(image)), image)
    painted = to_colours(to_luma(image), 0.3 * torch.randn(2, 2, 9, 7))
    torch.testing.assert_close(to_luma(painted), to_luma(image), rtol=0, atol=1e-6)
    # scikit-image's chroma spans 224 levels around 128.
    theirs = (rgb2ycbcr(image[0].permute(1, 2, 0).numpy())[..., 1:] - 128) / 224
    np.testing.assert_allclose(to_chroma(image)[0].permute(1, 2, 0).numpy(), theirs, atol=2e-3)


def test_colourfulness_of_known_images() -> None:
    assert float(colourfulness(torch.full((1, 3, 8, 8), 0.4))) == pytest.approx(0, abs=1e-3)
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 100 / 255
    assert float(colourfulness(red)) == pytest.approx(0.3 * math.hypot(100, 50), rel=1e-4)
    half = red.clone()
    half[..., 4:] = 0
    assert float(colourfulness(half)) == pytest.approx(math.hypot(50, 25) + 0.3 * math.hypot(50, 25), rel=1e-4)


def test_chroma_that_is_enlarged_keeps_to_the_edges_of_luma() -> None:
    luma = torch.zeros(1, 1, 64, 64)
    luma[..., 27:] = 1.0  # no border of the coarse grid lies there
    true = torch.where(luma > 0, 0.2, -0.1)
    small = resize(true, (16, 16))
    guided = along_edges(small, luma, resize(luma, (16, 16)))
    blurred = resize(small, (64, 64))
    assert (guided - true).abs().max() < 0.01 < 0.05 < (blurred - true).abs().max()
    flat = torch.full((1, 1, 64, 64), 0.5)  # nothing to keep to: plain enlarging
    plain = along_edges(small, flat, resize(flat, (16, 16)))
    assert (plain.mean() - true.mean()).abs() < 0.01


@torch.no_grad()
def test_many_samples_tighten_the_bound(network: Colorizer) -> None:
    c, y = pair()
    network.likelihood.set_variance(torch.tensor(0.01))
    given = network.given(c)
    noise = torch.randn((4, 64, 3, 1, 1), generator=torch.Generator().manual_seed(2))
    bound = elbo(given, y, noise)
    assert (bound.rate > 0).all()
    assert (iwae(given, y, noise) > bound.value).all()


def test_the_scale_is_learned_without_touching_the_mean(network: Colorizer) -> None:
    c, _ = pair()
    given = network.given(c)
    predicted = network.predict(given, given.prior_given.mean)
    network.zero_grad()
    predicted.log_scale.sum().backward()
    touched = {
        name.split(".")[0] for name, each in network.named_parameters() if each.grad is not None and each.grad.any()
    }
    assert touched == {"scale_head"}


def test_training_lowers_the_loss_and_leaves_the_backbone(network: Colorizer) -> None:
    c, y = pair(8)
    torch.manual_seed(0)
    model = Colorizer(network.backbone, latent_channels=3, widths=(8, 8, 12, 16), dropout=0.0).train()
    frozen = network.backbone.digest()
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 3e-3)
    losses = []
    for step in range(40):
        noise = torch.randn((8, 3, 1, 1), generator=torch.Generator().manual_seed(step))
        loss = colorization_loss(model, c, y, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02
    assert model.backbone.digest() == frozen


def test_the_exported_graph_agrees_at_any_size(network: Colorizer, tmp_path: Path) -> None:
    graph = ColorizationGraph(network, SIDE, gain=2.0, factor=torch.tensor([1.0, 2.0, 3.0]), exponent=0.9).eval()
    export_colorization(graph, tmp_path / "model.onnx", {})
    kept = {
        tensor.data_type
        for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
        if len(tensor.raw_data) > 8192
    }
    assert kept == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for shape, scale in (((1, SIDE, SIDE, 1), 0.0), ((3, 37, 90, 1), 1.0), ((1, 1, 1, 1), 0.0), ((1, 300, 5, 1), 1.0)):
        image, noise = torch.rand(shape, generator=generator), scale * torch.randn((shape[0], 3), generator=generator)
        with torch.no_grad():
            expected = graph(image, noise)
        found = session.run(None, {"image": image.numpy(), "noise": noise.numpy()})
        for one, name in zip(found, expected, strict=True):
            assert one.shape == (*shape[:3], 3)
            expected_one = expected[name].numpy()
            np.testing.assert_allclose(
                one, expected_one, rtol=0, atol=4e-3 * np.abs(expected_one).max()
            )  # half precision


@torch.no_grad()
def test_error_bars_are_raised_and_multiplied(network: Colorizer) -> None:
    c, _ = pair(1)
    image, noise, factor = c.permute(0, 2, 3, 1), torch.zeros(1, 3), torch.tensor([1.0, 2.0, 3.0])
    plain = ColorizationGraph(network, SIDE).eval()(image, noise)["restored_scale"]
    bent = ColorizationGraph(network, SIDE, factor=factor, exponent=0.8).eval()(image, noise)["restored_scale"]
    torch.testing.assert_close(bent, plain**0.8 * factor)


@torch.no_grad()
def test_samples_are_more_colourful_by_the_gain_alone(network: Colorizer) -> None:
    c, _ = pair(1)
    image, noise = c.permute(0, 2, 3, 1), torch.ones(1, 3)
    plain, strong = (ColorizationGraph(network, SIDE, gain).eval() for gain in (1.0, 2.5))
    torch.testing.assert_close(plain(image, 0 * noise)["restored"], strong(image, 0 * noise)["restored"])
    shifted = [graph(image, noise)["restored"] - image for graph in (plain, strong)]
    torch.testing.assert_close(2.5 * shifted[0], shifted[1], rtol=1e-3, atol=1e-5)
