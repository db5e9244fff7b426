"""The conditional VAE: its bound against closed forms, locality, what its graph gives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vaecore.bound import bound_maps, elbo, iwae
from vaecore.graphs.export import export_segmentation
from vaecore.graphs.segmentation import SegmentationGraph, segmentation_loss
from vaecore.networks import ConditionalVAE

SIDE = 32


def network(classes: int = 3, channels: int = 1) -> ConditionalVAE:
    torch.manual_seed(0)
    found = ConditionalVAE(channels=channels, classes=classes, latent_channels=2, widths=(8, 12), blocks=(1, 1))
    for parameter in found.tail.parameters():  # it starts at nothing, which would hide all that is before it
        torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


def pair(batch: int = 2, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    c = torch.rand((batch, 1, SIDE, SIDE), generator=generator)
    return c, torch.randint(classes, (batch, 1, SIDE, SIDE), generator=generator).float()


def noise(batch: int, samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn((batch, samples, 2, SIDE // 4, SIDE // 4), generator=generator)


@torch.no_grad()
def test_many_samples_tighten_the_bound_and_never_pass_the_truth() -> None:
    """log p(y|c) by brute force where z does nothing: both bounds are then the log-likelihood less the rate."""
    c, y = pair()
    model = network()
    torch.nn.init.zeros_(model.of_latents.weight)
    given = model.given(c)
    truth = given.decode(torch.zeros((2, 2, SIDE // 4, SIDE // 4))).log_prob(y).sum(dim=(1, 2, 3))
    bound = elbo(given, y, noise(2, 4))
    torch.testing.assert_close(bound.distortion, -truth)
    assert (bound.rate > 0).all()
    assert (iwae(given, y, noise(2, 256)) > bound.value).all()
    assert (iwae(given, y, noise(2, 256)) < truth + 1e-3).all()


@torch.no_grad()
def test_rate_is_the_kl_between_the_two_heads() -> None:
    c, y = pair()
    given = network().given(c)
    q, p = given.posterior(y), given.prior_given
    normal = [torch.distributions.Normal(each.mean, each.log_scale.exp()) for each in (q, p)]
    torch.testing.assert_close(
        bound_maps(given, y, noise(2, 1)).kl, torch.distributions.kl_divergence(*normal), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_the_posterior_sees_labels_in_their_own_cells() -> None:
    """What is drawn for a cell comes from labels there (and image nearby), not from labels elsewhere."""
    c, y = pair(1)
    given, other = network().given(c), y.clone()
    other[..., :4, :4] = (other[..., :4, :4] + 1) % 3
    moved = (given.posterior(y).mean - given.posterior(other).mean).abs().sum(dim=1)[0] > 1e-6
    assert moved[0, 0]
    assert not moved[4:, 4:].any()


@torch.no_grad()
def test_no_pixel_looks_further_than_the_halo() -> None:
    model = network()
    side = 2 * model.halo + 4 * model.multiple
    c = torch.rand((1, 1, side, side), generator=torch.Generator().manual_seed(3))
    z = torch.zeros((1, 2, side // model.multiple, side // model.multiple))
    other = c.clone()
    other[..., : side - model.halo - model.multiple, :] += 0.5
    changed = (model(c, z) - model(other, z)).abs().amax(dim=(0, 1, 3)) > 1e-6
    assert changed[: side - model.halo - model.multiple].all()
    assert not changed[side - model.multiple :].any()


def test_training_tells_labels_from_images() -> None:
    """Dark is 0, middle is 1, bright is 2: learned in some steps, from a bound that only rises on average."""
    generator = torch.Generator().manual_seed(4)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(90):
        c = torch.rand((4, 1, 4, 4), generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
        y = (c * 3).floor()
        loss = segmentation_loss(model, c, y, torch.randn((4, 2, 8, 8), generator=generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * math.log(3)
    labels = model(c, torch.zeros((4, 2, 8, 8))).argmax(dim=1, keepdim=True)
    assert float((labels == y).float().mean()) > 0.85


@pytest.mark.parametrize("classes", [2, 3])
def test_torch_and_onnx_runtime_agree(classes: int, tmp_path: Path) -> None:
    graph = SegmentationGraph(network(classes, channels=3), temperature=1.7).eval()
    export_segmentation(graph, tmp_path / "model.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    random = np.random.default_rng(0)
    for batch, height, width in ((1, 16, 24), (3, 8, 4)):
        image = random.random((batch, height, width, 3), np.float32)
        draws = random.standard_normal((batch, height // 4, width // 4, 2), np.float32)
        found = session.run(["restored", "restored_scale"], {"image": image, "noise": draws})
        with torch.no_grad():
            expected = graph(torch.from_numpy(image), torch.from_numpy(draws))
        np.testing.assert_allclose(found[0], expected["restored"].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], expected["restored_scale"].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[0].sum(axis=3), 1, atol=1e-5)
