"""What training may minimise in place of the plain bound. What is reported as the ELBO is always `bound.elbo`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound.gaussian import DiagonalGaussian
from vaecore.bound.lower_bound import iwae
from vaecore.bound.model import LatentVariableModel


def iwae_loss(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
) -> Float[Tensor, ""]:
    """The importance-weighted bound with S samples, in nats per dimension of y, negative: tighter than the ELBO.

    Source: Burda, Grosse, Salakhutdinov 2016, "Importance weighted autoencoders", eq. 8.
    """
    return -iwae(model, y, noise).mean() / y[0].numel()


def total_correlation(posterior: DiagonalGaussian, z: Float[Tensor, "B Z h w"]) -> Float[Tensor, ""]:
    """How far latents depend on each other over all images: KL(q(z) || prod_d q(z_d)) of the aggregate posterior q(z).

    An estimate, in nats, in which the batch stands for all images. (The paper's adds (D - 1) log N, with D latents and
    N images: a constant, which training does not see.)

    Source: Chen, Li, Grosse, Duvenaud 2018, "Isolating sources of disentanglement in VAEs", eqs. 2 and 3.
    """
    latents, count = z.flatten(1), len(z)
    each = DiagonalGaussian(posterior.mean.flatten(1)[None], posterior.log_scale.flatten(1)[None])
    log_q = each.log_prob(latents[:, None])  # (B, B, D): of each sample under each image's posterior
    joint = torch.logsumexp(log_q.sum(dim=2), dim=1) - math.log(count)
    alone = torch.logsumexp(log_q, dim=1) - math.log(count)
    return (joint - alone.sum(dim=1)).mean()
