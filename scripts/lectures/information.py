"""Which latent knows which factor of variation, and whether it is alone in that: the mutual information gap.

Shapes: N images, Z latents, K factors. Information is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vaecore.bound import DiagonalGaussian

SAMPLES = 10_000  # of q(z), as in the paper
CHUNK = 200  # of them at a time: memory holds so many times N densities for each latent


def factor_entropy(factors: Int[Tensor, "N K"]) -> Float[Tensor, " K"]:
    """Entropy of each factor over the images, in nats."""
    counts = [torch.unique(column, return_counts=True)[1].double() for column in factors.T]
    return torch.stack([-(share * share.log()).sum() for share in (count / count.sum() for count in counts)])


@torch.no_grad()
def mutual_information(
    posterior: DiagonalGaussian,
    factors: Int[Tensor, "N K"],
    generator: torch.Generator,
    *,
    samples: int = SAMPLES,
) -> Float[Tensor, "Z K"]:
    """I(z_j; v_k) of each latent and each factor.

    By samples of q(z_j | x), whose density under all images together is compared with that under those which have the
    same value of the factor. So there are no bins to choose, and how wide a posterior is counts: a latent that the
    network does not use has means that differ by a little, which bins of means would take for information.

    Args:
        posterior: q(z | x_n) of each image, (N, Z, 1, 1) or any other grid, whose cells are latents of their own.
        factors: Their factors, each a number of a value. As often as values occur here they are taken to occur.
        generator: Source of the samples, on the CPU.
        samples: How many.

    Returns:
        Nats. An estimate: that of a latent which knows nothing is nearly zero, of either sign.

    Source: Chen, Li, Grosse, Duvenaud 2018, "Isolating sources of disentanglement in VAEs", section 4.1, eq. 5.
    """
    mean, log_scale = posterior.mean.flatten(1).double(), posterior.log_scale.flatten(1).double()
    images = torch.randint(len(mean), (samples,), generator=generator)
    noise = torch.randn((samples, mean.shape[1]), generator=generator, dtype=torch.float64)
    columns = [F.one_hot(column - column.min()).double() for column in factors.T]
    log_counts = [column.sum(dim=0).clamp(min=1).log() for column in columns]
    which = [column.argmax(dim=1) for column in columns]
    everyone = torch.cat(columns, dim=1)  # (N, values of all factors)
    widths = [column.shape[1] for column in columns]
    total = torch.zeros(mean.shape[1], len(columns), dtype=torch.float64)
    for part, drawn in zip(images.split(CHUNK), noise.split(CHUNK), strict=True):
        for latent in range(mean.shape[1]):
            each = DiagonalGaussian(mean[:, latent], log_scale[:, latent])
            z = mean[part, latent] + log_scale[part, latent].exp() * drawn[:, latent]
            log_q = each.log_prob(z[:, None])  # (samples, N)
            peak = log_q.max(dim=1, keepdim=True).values
            density = torch.exp(log_q - peak)
            alone = density.sum(dim=1).log() - math.log(len(mean))
            for factor, by_value in enumerate((density @ everyone).split(widths, dim=1)):
                own = which[factor][part]
                given = by_value.gather(1, own[:, None])[:, 0].clamp(min=1e-300).log() - log_counts[factor][own]
                total[latent, factor] += (given - alone).sum()
    return total / samples


def mutual_information_gap(
    information: Float[Tensor, "Z K"], entropy: Float[Tensor, " K"]
) -> tuple[float, Sequence[float]]:
    """How far the latent that knows most of a factor is ahead of the next, as a share of the factor's entropy.

    Args:
        information: I(z_j; v_k), in nats.
        entropy: H(v_k), in nats.

    Returns:
        The mean over factors, and each factor's own: 1 where one latent knows the factor and no other does, 0 where two
        know as much.

    Raises:
        ValueError: There is one latent, and none that it could be ahead of.

    Source: Chen, Li, Grosse, Duvenaud 2018, "Isolating sources of disentanglement in VAEs", section 4.1, eq. 6.
    """
    if len(information) < 2:
        msg = f"a gap is between two latents, and there is {len(information)}"
        raise ValueError(msg)
    best, second = information.topk(2, dim=0).values
    gaps = (best - second) / entropy
    return float(gaps.mean()), gaps.tolist()
