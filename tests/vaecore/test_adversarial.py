"""The adversarial term against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vaecore.adversarial import adversarial_term, discriminator_loss, generator_loss, r1
from vaecore.damage.degradations import grain
from vaecore.networks import Degrader, PatchDiscriminator

REAL = torch.tensor([2.0, 0.5, -1.0]).view(3, 1, 1, 1)
MADE = torch.tensor([-3.0, 0.0, 1.0]).view(3, 1, 1, 1)


def test_hinge_on_known_outputs() -> None:
    assert float(discriminator_loss(REAL, MADE, "hinge")) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert float(generator_loss(MADE, "hinge")) == pytest.approx(2 / 3)


def test_minmax_on_known_outputs() -> None:
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    of_real = -sum(math.log(sigmoid(value)) for value in (2.0, 0.5, -1.0)) / 3
    of_made = -sum(math.log(1 - sigmoid(value)) for value in (-3.0, 0.0, 1.0)) / 3
    assert float(discriminator_loss(REAL, MADE, "minmax")) == pytest.approx(of_real + of_made, rel=1e-5)
    of_maker = -sum(math.log(sigmoid(value)) for value in (-3.0, 0.0, 1.0)) / 3
    assert float(generator_loss(MADE, "minmax")) == pytest.approx(of_maker, rel=1e-5)


def test_minmax_at_the_equilibrium_is_log_four() -> None:
    """Goodfellow et al. 2014, theorem 1: the value is -log 4 where nobody can tell."""
    nothing = torch.zeros(2, 1, 3, 3)
    assert float(discriminator_loss(nothing, nothing, "minmax")) == pytest.approx(math.log(4))


def test_r1_of_a_linear_discriminator_is_its_squared_weight() -> None:
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 3, 4, 5).requires_grad_()
    outputs = (images * weight).sum(dim=(1, 2, 3)).view(6, 1, 1, 1)
    assert float(r1(outputs, images, gamma=7.0)) == pytest.approx(3.5 * float(weight.square().sum()), rel=1e-5)


def test_r1_of_patches_that_are_apart_is_the_mean_of_theirs() -> None:
    convolution = nn.Conv2d(2, 1, 4, stride=4, bias=False)
    images = torch.rand(3, 2, 12, 8).requires_grad_()
    squared = float(convolution.weight.detach().square().sum())
    penalty = r1(convolution(images), images, gamma=2.0)
    assert float(penalty.detach()) == pytest.approx(squared, rel=1e-5)
    penalty.backward()  # it teaches the discriminator: d|w|^2/dw = 2w
    torch.testing.assert_close(convolution.weight.grad, 2 * convolution.weight.detach())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_the_term_pulls_as_hard_as_asked_whatever_the_scales_are(scale: float) -> None:
    made = torch.rand(2, 3, 8, 8).requires_grad_()
    error = (made * made).sum() * scale
    adversarial = (made * torch.randn(2, 3, 8, 8)).sum()
    term = adversarial_term(error, made, adversarial, made, weight=0.5)
    (of_error,) = torch.autograd.grad(error, made, retain_graph=True)
    (of_term,) = torch.autograd.grad(term.loss, made)
    assert float(of_term.norm() / of_error.norm()) == pytest.approx(0.5, rel=1e-4)
    assert float(term.share) == pytest.approx(1 / 3, rel=1e-4)
    assert float(term.loss.detach()) == pytest.approx(
        float(term.factor) * float(adversarial.detach()), rel=1e-3, abs=1e-5
    )


def test_a_discriminator_of_no_opinion_is_not_shouted_up() -> None:
    made = torch.rand(1, 1, 4, 4).requires_grad_()
    term = adversarial_term(made.square().sum(), made, (0 * made).sum(), made, weight=1.0)
    (of_term,) = torch.autograd.grad(term.loss, made)
    assert torch.equal(of_term, torch.zeros_like(of_term))


def test_an_output_sees_its_patch_alone() -> None:
    discriminator = PatchDiscriminator(1, widths=(4, 4, 4))
    image = torch.rand(1, 1, 160, 160)
    before = discriminator(image)
    image[..., 80 + 29 :] = 1 - image[..., 80 + 29 :]
    changed = (discriminator(image) != before)[0, 0].any(dim=0)
    assert changed.any()
    assert not changed[:10].any()  # the tenth output's patch ends 28 pixels behind the pixel 80
    assert before.shape == (1, 1, 20, 20)


def test_grain_of_white_noise_is_its_standard_deviation() -> None:
    noise = 0.1 * torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    noise[1] *= 3
    torch.testing.assert_close(grain(0.5 + noise), torch.tensor([0.1, 0.3]), rtol=0.02, atol=0)


def test_a_damage_that_has_learned_nothing_is_white_noise() -> None:
    noise = torch.randn(1, 3, 16, 16)
    y = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(Degrader(3, 0.1)(y, noise), y + 0.1 * noise)


def test_a_damage_can_blur_but_not_tint() -> None:
    degrader = Degrader(1, 1e-4)
    y = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    first, last = degrader.change[0], degrader.change[2]
    with torch.no_grad():
        last.bias.fill_(0.2)  # a cast
        torch.testing.assert_close(degrader(y, torch.zeros_like(y)), y)
        last.bias.zero_()
        first.weight.zero_()
        first.bias.fill_(0.0)
        first.weight[0] = 1 / 9  # the mean of its neighbours, which is never below zero
        first.weight[1, 0, 1, 1] = 1.0  # itself
        last.weight[0, 0, 1, 1], last.weight[0, 1, 1, 1] = 1.0, -1.0
        blurred = degrader(y, torch.zeros_like(y))
    assert float(blurred.var()) < 0.3 * float(y.var())
    assert float(blurred.mean()) == pytest.approx(float(y.mean()), abs=2e-3)
