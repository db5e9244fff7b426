"""Likelihood regret: how much better a posterior fits an image that was fitted to it alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound.gaussian import DiagonalGaussian
from vaecore.bound.lower_bound import bound_under
from vaecore.bound.model import LatentVariableModel

STEPS = 100
SAMPLES = 4  # of the latent in each step, new ones each time: the fit must not learn its noise by heart
JUDGED = 64  # samples under which the two bounds are compared, the same for both
LEARNING_RATE = 0.05  # prior standard deviations a step, falling to nothing: some three of them are within reach


def likelihood_regret(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    generator: torch.Generator,
    *,
    steps: int = STEPS,
) -> Float[Tensor, " B"]:
    """How much the bound gains when mean and scale of q(z) are fitted to each image, the decoder held fixed.

    Small for images like those of training, whose posterior the encoder knows, large for foreign ones, also where their
    likelihood is high.

    Args:
        model: The trained network. Its weights stay as they are.
        y: What the bound is on.
        generator: Source of the latent noise, on the CPU.
        steps: Of Adam for each image. More find more of the regret.

    Returns:
        Nats: the fitted bound less the encoder's, both under samples that the fit has not seen. A sampling error of
        either sign stays, so that an image without regret may come out a little below nought.

    Source: Xiao, Yan, Amit 2020, "Likelihood regret: an out-of-distribution detection score for variational
    auto-encoder", section 4, with the sufficient statistics of q(z) as what is optimised.
    """

    def bound(posterior: DiagonalGaussian, noise: Tensor) -> Tensor:
        return bound_under(model, posterior, y, noise).total().value

    def draw(samples: int) -> Tensor:
        return torch.randn((len(y), samples, *model.latent_shape), generator=generator).to(y)

    with torch.no_grad():
        inferred = model.posterior(y)
    mean, log_scale = (part.detach().clone().requires_grad_() for part in (inferred.mean, inferred.log_scale))
    optimiser = torch.optim.Adam([mean, log_scale], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, total_iters=steps)
    for _ in range(steps):
        loss = -bound(DiagonalGaussian(mean, log_scale), draw(SAMPLES)).sum()
        mean.grad, log_scale.grad = torch.autograd.grad(loss, [mean, log_scale])
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        fitted, parts = DiagonalGaussian(mean, log_scale), (draw(SAMPLES) for _ in range(JUDGED // SAMPLES))
        # a part at a time: memory as in training
        return torch.stack([bound(fitted, noise) - bound(inferred, noise) for noise in parts]).mean(dim=0)
