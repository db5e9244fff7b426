"""The aggregate posterior q(z) = (1/N) sum_n q(z | y_n): where the images are among the latents, against the prior.

What the rate hides: each posterior may be close to p(z) and all of them together far from it. KL(q || p) is large where
images lie outside what the prior expects, KL(p || q) where the prior expects what no image is like: holes, whose
samples look like nothing.

Source: Hoffman and Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound",
whose split of the mean rate, mutual information + KL(q(z) || p(z)), this measures; Rosca, Lakshminarayanan and
Mohamed 2018, "Distribution matching in variational inference", on holes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound import DiagonalGaussian, GenerativeModel
from vaecore.networks.blocks import StandardPrior
from vaecore.networks.class_prior import ClassMixture
from vaecore.priors import GaussianMixture

_PAIRS = 4_000_000  # of samples and posteriors at the same time: memory


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, in nats."""

    value: float
    error: float


class AggregateKl(NamedTuple):
    """How far q(z) and p(z) are apart."""

    forward: Estimate  # KL(q || p): images outside of the prior
    reverse: Estimate  # KL(p || q): holes of the prior


def aggregate_log_density(posterior: DiagonalGaussian, z: Float[Tensor, "S Z h w"]) -> Float[Tensor, " S"]:
    """log q(z) of each z: of the mean of N posteriors, (N, Z, h, w), over all latents together, in nats.

    By products of matrices: S x N differences of all latents would not fit into memory.
    """
    mean, log_scale = posterior.mean.flatten(1).double(), posterior.log_scale.flatten(1).double()
    centre, precision = mean.mean(dim=0), torch.exp(-2 * log_scale)
    mean = mean - centre  # what is subtracted below is smaller
    constant = (-0.5 * precision * mean.square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(dim=1)
    coefficients = torch.cat([-0.5 * precision, precision * mean], dim=1).T
    step = max(1, _PAIRS // len(mean))
    parts = []
    for part in (z.flatten(1).double() - centre).split(step):
        each = torch.cat([part.square(), part], dim=1) @ coefficients + constant
        parts.append(torch.logsumexp(each, dim=1) - math.log(len(mean)))
    return torch.cat(parts)


@torch.no_grad()
def aggregate_kl(
    model: GenerativeModel, posterior: DiagonalGaussian, generator: torch.Generator, *, samples: int = 4096
) -> AggregateKl:
    """Both KL divergences between q(z) and p(z), by samples.

    Of these N images: q(z) of few images is narrow, so that both are above zero also where all images there are would
    fill the prior. `even_posterior` tells by how much.

    Args:
        model: Whose prior.
        posterior: q(z | y_n) of N images, (N, Z, h, w), each with some width.
        generator: Source of the samples.
        samples: From q(z), and as many from p(z).

    Returns:
        The means of log q - log p over samples of q, and of log p - log q over samples of p.
    """
    which = torch.randint(len(posterior.mean), (samples,), generator=generator)
    noise = torch.randn((samples, *posterior.mean.shape[1:]), generator=generator)
    from_q = posterior.mean[which] + posterior.log_scale[which].exp() * noise
    from_p = model.sample_prior(samples, generator)
    return AggregateKl(_mean(_log_ratio(model, posterior, from_q)), _mean(-_log_ratio(model, posterior, from_p)))


@torch.no_grad()
def even_posterior(
    model: GenerativeModel, posterior: DiagonalGaussian, generator: torch.Generator
) -> DiagonalGaussian | None:
    """The posteriors that as many images would have if they filled the prior: of the same widths, with means from p(z).

    The means are drawn nearer to those of the component that they are of, so that with the widths their variance is the
    component's: exact for a standard normal prior and for mixtures of Gaussians with independent latents, as far as no
    width is above that of the component. None for other priors.
    """
    z = model.sample_prior(len(posterior.mean), generator)
    prior = model.prior(z[:, None])
    if isinstance(prior, (GaussianMixture, ClassMixture)):
        component = prior.component_of(z, generator)
    elif isinstance(model, StandardPrior):
        component = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
    else:
        return None
    left = (1 - torch.exp(2 * (posterior.log_scale - component.log_scale))).clamp(min=0).sqrt()
    return DiagonalGaussian(component.mean + left * (z - component.mean), posterior.log_scale)


def _log_ratio(model: GenerativeModel, posterior: DiagonalGaussian, z: Float[Tensor, "S Z h w"]) -> Float[Tensor, " S"]:
    """log q(z) - log p(z)."""
    return aggregate_log_density(posterior, z) - _prior_log_density(model, z)


def _prior_log_density(model: GenerativeModel, z: Float[Tensor, "S Z h w"]) -> Float[Tensor, " S"]:
    return model.prior(z[:, None]).log_density(z[:, None]).expand(len(z), 1)[:, 0].double()


def _mean(values: Float[Tensor, " S"]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))
