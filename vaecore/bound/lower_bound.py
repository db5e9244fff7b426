"""The one equation: log p(y|c) >= E_q[log p(y|z,c)] - KL(q(z|y,c) || p(z|c)) = -(distortion + rate) = ELBO.

Shapes: B images, S samples of the latent, C channels, H x W pixels, Z latent channels on an h x w grid
(1 x 1 for a latent vector). Everything is in nats, summed over dimensions, unless a name says otherwise.

Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", eq. 3; the words rate and distortion follow
Alemi et al. 2018, "Fixing a broken ELBO".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound.gaussian import DiagonalGaussian
from vaecore.bound.model import ExactModel, HierarchicalModel, LatentVariableModel
from vaecore.likelihoods.base import Distribution


class Elbo(NamedTuple):
    """One image's bound, split into its two terms. Nats, summed over dimensions."""

    distortion: Float[Tensor, " B"]  # -E_q[log p(y | z, c)]
    rate: Float[Tensor, " B"]  # KL(q || p)

    @property
    def value(self) -> Float[Tensor, " B"]:
        """The bound itself: higher means that the model finds the image more likely."""
        return -(self.distortion + self.rate)


class BoundMaps(NamedTuple):
    """The same bound in parts: distortion of each dimension of y, KL of each latent."""

    distortion: Float[Tensor, "B C H W"]
    kl: Float[Tensor, "B Z h w"]
    posterior: DiagonalGaussian
    likelihood: Distribution  # p(y | z) of all S samples, sample-major within an image: B*S first

    @property
    def rate(self) -> Float[Tensor, "B h w"]:
        """Rate of each cell of the latent grid."""
        return self.kl.sum(dim=1)

    def total(self) -> Elbo:
        """Sum over dimensions and cells."""
        return Elbo(self.distortion.sum(dim=(1, 2, 3)), self.rate.sum(dim=(1, 2)))


def attribution(distortion: Float[Tensor, "B H W"], rate: Float[Tensor, "B h w"]) -> Float[Tensor, "B H W"]:
    """distortion + rate for each place: the rate of a latent cell is spread evenly over its places.

    Its sum over places is minus the image's ELBO. An attribution of the KL, not a density of one place.
    """
    height, width = distortion.shape[-2:]
    h, w = rate.shape[-2:]
    return distortion + spread(rate, (height // h, width // w))


def spread(cells: Float[Tensor, "B h w"], factor: tuple[int, int]) -> Float[Tensor, "B H W"]:
    """Divide each cell's value evenly among the `factor` finer cells that it covers; the sum stays the same."""
    finer = cells.repeat_interleave(factor[0], 1).repeat_interleave(factor[1], 2)
    return finer / (factor[0] * factor[1])


def bound_maps(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
    *,
    weight: Float[Tensor, "C 1 1"] | None = None,
    given: Float[Tensor, "B C H W"] | None = None,
) -> BoundMaps:
    """Evaluate the bound with S samples of the latent.

    Args:
        model: The network.
        y: What the bound is on: images divided by the dtype's maximum, or features of them.
        noise: Standard normal numbers; their second axis sets S. The same noise gives the same bound to the bit.
        weight: Of each channel's log-likelihood, where y holds several copies of one image: the value is then a
            composite likelihood's, not a joint bound (Varin, Reid, Firth 2011, "An overview of composite likelihood
            methods").
        given: What the posterior is inferred from, instead of y: a damaged copy, say. Any q(z) gives a bound on
            log p(y), so this stays one.

    Returns:
        Distortion (mean over samples) and rate (closed form, or the mean over samples), in nats.
    """
    return bound_under(model, model.posterior(y if given is None else given), y, noise, weight=weight)


def bound_under(
    model: LatentVariableModel,
    posterior: DiagonalGaussian,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
    *,
    weight: Float[Tensor, "C 1 1"] | None = None,
) -> BoundMaps:
    """The bound under any q(z), wherever it comes from; of an `ExactModel` the noise makes no difference to it.

    See `bound_maps`.
    """
    z = posterior.sample(noise)
    p_y = model.decode(z.flatten(0, 1))
    kl = model.prior(z).kl_from(posterior.for_samples(), z).mean(dim=1)
    if isinstance(model, ExactModel):
        distortion = model.expected_distortion(y, posterior)
        return BoundMaps(distortion if weight is None else distortion * weight, kl, posterior, p_y)
    return BoundMaps(-sampled_log_prob(p_y, y, z.shape[1], weight).mean(dim=1), kl, posterior, p_y)


def bound_from_above(
    model: HierarchicalModel,
    maps: BoundMaps,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
) -> BoundMaps:
    """The looser bound that infers the upper latents only and draws the lower ones from their prior.

    `maps` is the full bound of the same y and noise. The distance to it is how much an image needs details that
    what it is of does not imply: large for what the model has not seen, also where the likelihood itself is not small.

    Source: Havtorn, Frellsen, Hauberg, Maaloe 2021, "Hierarchical VAEs know what they don't know", eqs. 6 and 7.
    """
    z = maps.posterior.sample(noise)
    p_y = model.decode(model.from_above(z, noise).flatten(0, 1))
    lower, upper = maps.kl[:, : model.lower_channels], maps.kl[:, model.lower_channels :]
    distortion = -sampled_log_prob(p_y, y, z.shape[1]).mean(dim=1)
    return BoundMaps(distortion, torch.cat([torch.zeros_like(lower), upper], dim=1), maps.posterior, p_y)


def sampled_log_prob(
    p_y: Distribution, y: Float[Tensor, "B C H W"], samples: int, weight: Tensor | None = None
) -> Float[Tensor, "B S C H W"]:
    """Log-likelihood of each dimension of y under each of S samples, times its channel's weight; p_y holds B*S."""
    repeated = y.unsqueeze(1).expand(-1, samples, -1, -1, -1).flatten(0, 1)
    log_p: Tensor = p_y.log_prob(repeated).unflatten(0, (-1, samples))
    return log_p if weight is None else torch.mul(log_p, weight)


def elbo(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
) -> Elbo:
    """The plain bound of each image: beta and free bits never enter it. See `bound_maps`."""
    return bound_maps(model, y, noise).total()


def iwae(
    model: LatentVariableModel,
    y: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B S Z h w"],
    *,
    maps: BoundMaps | None = None,
) -> Float[Tensor, " B"]:
    """The S-sample importance-weighted bound of each image, in nats: tighter as S grows.

    Args:
        model: The network.
        y: What the bound is on.
        noise: Its second axis sets S.
        maps: What `bound_maps` gives of all the above, where that is known already: the samples are decoded once.

    Returns:
        log (1/S) sum_s p(y, z_s) / q(z_s | y).

    Source: Burda, Grosse, Salakhutdinov 2016, "Importance weighted autoencoders", eq. 8.
    """
    samples = noise.shape[1]
    posterior = model.posterior(y) if maps is None else maps.posterior
    z = posterior.sample(noise)
    p_y = model.decode(z.flatten(0, 1)) if maps is None else maps.likelihood
    log_p_y = sampled_log_prob(p_y, y, samples).sum(dim=(2, 3, 4))
    log_weight = log_p_y + model.prior(z).log_density(z) - posterior.for_samples().log_density(z)
    # log S as a sum over samples, so that an exported graph takes any number of them
    return torch.logsumexp(log_weight, dim=1) - torch.logsumexp(torch.zeros_like(log_weight), dim=1)


def training_loss(maps: BoundMaps, *, beta: float = 1.0, free_bits: float = 0.0) -> Float[Tensor, ""]:
    """What training minimises, in nats per dimension of y: distortion + beta * rate, with a floor under the rate.

    Never reported as the ELBO: that is always `elbo`.

    Args:
        maps: The bound of a batch.
        beta: Weight of the rate (Higgins et al. 2017, "beta-VAE"); 1 is the bound.
        free_bits: Nats for each latent channel that cost nothing (Kingma et al. 2016, "Improved variational
            inference with inverse autoregressive flow", eq. 15); the mean over the batch is taken first.

    Returns:
        A scalar.
    """
    rate_by_channel = maps.kl.sum(dim=(2, 3)).mean(dim=0)
    if free_bits > 0:
        rate_by_channel = rate_by_channel.clamp(min=free_bits)
    distortion = maps.distortion.sum(dim=(1, 2, 3)).mean()
    dims = maps.likelihood.mean[0].numel()
    return (distortion + beta * rate_by_channel.sum()) / dims
