"""The adversarial term: a discriminator learns to tell real images from made ones, and makers learn to pass for real.

What it adds prefers sharp to faithful: it is no part of any bound on a likelihood, and enters no reported ELBO.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["hinge", "minmax"]
MOST = 1e4  # that the adversarial gradient is enlarged: what a discriminator of no opinion says is noise


def discriminator_loss(
    real: Float[Tensor, "B 1 h w"], made: Float[Tensor, "B2 1 h w"], kind: Kind = "hinge"
) -> Float[Tensor, ""]:
    """What a discriminator minimises, given its outputs (logits) on real and on made images.

    Source: "minmax": minus the value of Goodfellow et al. 2014, "Generative adversarial nets", eq. 1, with
    D = sigmoid(output); "hinge": Lim and Ye 2017, "Geometric GAN", eq. 14.

    >>> float(discriminator_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)))
    2.0
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()
    return F.softplus(-real).mean() + F.softplus(made).mean()


def generator_loss(made: Float[Tensor, "B 1 h w"], kind: Kind = "hinge") -> Float[Tensor, ""]:
    """What the maker of images minimises, given a discriminator's outputs on them.

    Source: "minmax": -log D of what is made, which has the same fixed point and does not vanish while the
    discriminator is right (Goodfellow et al. 2014, section 3); "hinge": Lim and Ye 2017, eq. 15.
    """
    return -made.mean() if kind == "hinge" else F.softplus(-made).mean()


def r1(outputs: Float[Tensor, "B 1 h w"], images: Float[Tensor, "B C H W"], gamma: float) -> Float[Tensor, ""]:
    """Penalty on the discriminator's slope at real images: gamma/2 E|grad D|^2, which makes training converge.

    A PatchGAN has an output for each patch. The slope is that of their sum, and its square is divided by their number:
    were patches apart, that were the mean over patches of each one's penalty; with one output it is the paper's.

    Args:
        outputs: The discriminator's, of `images`, with a graph.
        images: Real ones, which require a gradient.
        gamma: Weight.

    Source: Mescheder, Geiger, Nowozin 2018, "Which training methods for GANs do actually converge?", eq. 9.
    """
    (slope,) = torch.autograd.grad(outputs.sum(), images, create_graph=True)
    return gamma / 2 * slope.square().sum(dim=(1, 2, 3)).mean() / outputs[0].numel()


class Term(NamedTuple):
    """What is added to an error that is minimised."""

    loss: Float[Tensor, ""]
    share: Float[Tensor, ""]  # of the gradient at the images that are made, both terms' norms being the whole
    factor: Float[Tensor, ""]  # that the adversarial loss was multiplied by


def adversarial_term(
    error: Float[Tensor, ""], restored: Tensor, adversarial: Float[Tensor, ""], judged: Tensor, weight: float
) -> Term:
    """An adversarial loss brought to `weight` times the strength of an error, by gradients at the images themselves.

    So one weight means the same whatever the error's scale is, and stays in force while the error shrinks. The gradient
    is kept and handed on: nothing runs backwards through the discriminator twice.

    Args:
        error: What is minimised beside; depends on `restored`.
        restored: Images that the error is of.
        adversarial: `generator_loss`; depends on `judged`.
        judged: Images that the discriminator has seen.
        weight: 1: both pull equally hard.

    Source: the adaptive weight of Esser, Rombach, Ommer 2021, "Taming transformers for high-resolution image
    synthesis", eq. 7, with gradients at the image instead of the last layer.
    """
    (of_error,) = torch.autograd.grad(error, restored, retain_graph=True)
    (of_adversary,) = torch.autograd.grad(adversarial, judged)
    mine, theirs = of_error.float().norm(), of_adversary.float().norm()
    factor = (weight * mine / theirs.clamp(min=1e-12)).clamp(max=MOST)
    pull = (judged * (factor * of_adversary)).sum()  # whose gradient is that of factor * adversarial
    loss = pull + (factor * adversarial - pull).detach()
    return Term(loss, factor * theirs / (mine + factor * theirs).clamp(min=1e-12), factor)
