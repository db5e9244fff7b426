"""Likelihood regret: how much better a posterior fits an image that was fitted to it alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound import DiagonalGaussian, LatentVariableModel, bound_under

STEPS = 100
LEARNING_RATE = 0.05  # prior standard deviations a step, at most: five of them are within reach


def likelihood_regret(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
    *,
    weight: Float[Tensor, "C 1 1"] | None = None,
    steps: int = STEPS,
) -> Float[Tensor, " B"]:
    """How much the bound gains when mean and scale of q(z) are fitted to each image, the decoder held fixed.

    Small for images like those of training, whose posterior the encoder knows, large for foreign ones, also where their
    likelihood is high. An image's regret does not depend on its batch: Adam treats every number by itself.

    Args:
        model: The trained network. Its weights stay as they are.
        y: What the bound is on.
        noise: Standard normal numbers, the same in every step, so that the result repeats.
        weight: Of each channel's log-likelihood; see `bound_maps`.
        steps: Of Adam for each image. More find more of the regret.

    Returns:
        Nats, never negative: the best bound seen less the encoder's.

    Source: Xiao, Yan, Amit 2020, "Likelihood regret: an out-of-distribution detection score for variational
    auto-encoder", section 4, with the sufficient statistics of q(z) as what is optimised.
    """
    with torch.no_grad():
        inferred = model.posterior(y)
    mean, log_scale = (part.detach().clone().requires_grad_() for part in (inferred.mean, inferred.log_scale))
    optimiser = torch.optim.Adam([mean, log_scale], lr=LEARNING_RATE)
    first = best = _bound(model, DiagonalGaussian(mean, log_scale), y, noise, weight).detach()
    for _ in range(steps):
        bound = _bound(model, DiagonalGaussian(mean, log_scale), y, noise, weight)
        best = torch.maximum(best, bound.detach())
        mean.grad, log_scale.grad = torch.autograd.grad(-bound.sum(), [mean, log_scale])
        optimiser.step()
    with torch.no_grad():
        last = _bound(model, DiagonalGaussian(mean, log_scale), y, noise, weight)
    return torch.maximum(best, last) - first


def _bound(
    model: LatentVariableModel, posterior: DiagonalGaussian, y: Tensor, noise: Tensor, weight: Tensor | None
) -> Float[Tensor, " B"]:
    return bound_under(model, posterior, y, noise, weight=weight).total().value
