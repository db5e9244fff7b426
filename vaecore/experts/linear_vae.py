"""The linear VAE of a whole map of features, in closed form: principal components, with an exact ELBO."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.experts.base import Batches, InClosedForm, Sums, to_half
from vaecore.likelihoods.gaussian import Gaussian, KnownScaleLikelihood
from vaecore.networks.blocks import StandardPrior

LEAST_SCALE = 1e-3  # of a dimension, in standard deviations of its channel: a constant one must not divide by nothing
OWN_SHARE = 0.5  # of a dimension's variance that is its own; the rest is its channel's, so that few images do no harm
LATENTS = 128
IMAGES_A_LATENT = 4 / 3  # fewer images, and the latents would hold each of them
LARGEST = 14_000_000  # numbers of the basis: in half precision, with the other experts, the file is below 64 MB


class ClosedFormLinearVAE(InClosedForm, StandardPrior, nn.Module):
    """q(z|y) = N(m(y), diag(v)), p(y|z) = N(mu + s U diag(g) z, diag(s^2) sigma^2); U has orthonormal columns.

    With the scales s of the dimensions given (their spread over good images, shrunk towards that of their channel) the
    maximum-likelihood solution for mu, U, g and sigma is probabilistic principal component analysis of y / s. q is the
    exact posterior, so that the ELBO equals log p(y). One basis serves both directions.

    Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", eqs. 7 and 8; Lucas, Tucker, Grosse,
    Norouzi 2019, "Don't blame the ELBO!", section 4.
    """

    offset: Tensor
    basis: Tensor
    gain: Tensor
    slack: Tensor

    def __init__(self, *, channels: int, size: tuple[int, int], latents: int) -> None:
        """Make room for a fitted model of y of exactly `size`."""
        super().__init__()
        self.shape = (channels, *size)
        self.latent_shape = (latents, 1, 1)
        self.likelihood = KnownScaleLikelihood(self.shape)
        dims = channels * size[0] * size[1]
        self.register_buffer("offset", torch.zeros(self.shape))
        self.register_buffer("basis", torch.zeros(latents, dims))
        self.register_buffer("gain", torch.ones(latents))  # standard deviations of p(y|z)'s noise
        self.register_buffer("slack", torch.zeros(self.shape))  # nats that the posterior's own spread costs

    @property
    def posterior_variance(self) -> Float[Tensor, " Z"]:
        """Of each latent, the same for every image."""
        return 1 / (1 + self.gain.square())

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y): the same scale for every image."""
        whitened = (y - self.offset) * torch.exp(-self.likelihood.log_scale)
        mean = (whitened.flatten(1) @ self.basis.T * self.gain * self.posterior_variance)[:, :, None, None]
        return DiagonalGaussian(mean, (0.5 * self.posterior_variance.log())[None, :, None, None].expand_as(mean))

    def decode(self, z: Float[Tensor, "B Z 1 1"]) -> Gaussian:
        """p(y | z)."""
        mean = ((z.flatten(1) * self.gain) @ self.basis).unflatten(1, self.shape)
        distribution: Gaussian = self.likelihood(self.offset + mean * torch.exp(self.likelihood.log_scale))
        return distribution

    def expected_distortion(self, y: Float[Tensor, "B C H W"], posterior: DiagonalGaussian) -> Tensor:
        """-E_q[log p(y | z)] of each dimension, exactly: no sample of z is drawn."""
        return self.slack - self.decode(posterior.mean).log_prob(y)

    @torch.no_grad()
    def gather(self, y: Float[Tensor, "B C H W"]) -> Sums:
        """Number of images, sums and squares of each dimension."""
        return torch.tensor(len(y)), y.sum(dim=0).double(), y.square().sum(dim=0).double()

    @torch.no_grad()
    def fit_to(self, sums: Sums, batches: Batches) -> None:
        """Put the closed-form solution for good images into the buffers.

        Raises:
            ValueError: There are no more images than latents: no noise would be left, and every bound be infinite.
        """
        count, scale = self._fit_scale(sums)
        if count <= len(self.basis):
            raise ValueError(f"{count} images are too few for {len(self.basis)} latents")
        rows = torch.cat([((y - self.offset) / scale).flatten(1) for y in batches()])
        latents, dims = self.basis.shape
        eigenvalues, vectors = torch.linalg.eigh((rows @ rows.T).double() / count)
        eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
        variance = (eigenvalues[latents:].sum() / (dims - latents)).clamp(min=LEAST_SCALE**2)
        kept = eigenvalues[:latents].clamp(min=1e-12)
        basis = (vectors[:, :latents] / (count * kept).sqrt()).T.float() @ rows
        self.basis.copy_(to_half(basis))
        self.gain.copy_(((kept - variance).clamp(min=0) / variance).sqrt())
        self.likelihood.log_scale.copy_(scale.log() + 0.5 * variance.log())
        spread = self.gain.square() * self.posterior_variance
        self.slack.copy_(0.5 * (self.basis.square().T @ spread).view(self.shape))

    def _fit_scale(self, sums: Sums) -> tuple[int, Float[Tensor, "C H W"]]:
        """Set the mean; return the number of images, and the scale of each dimension."""
        count, total, square = sums
        mean = total / count
        variance = (square / count - mean.square()).clamp(min=0)
        shared = variance.mean(dim=(1, 2), keepdim=True)
        self.offset.copy_(mean)
        scale = (OWN_SHARE * variance + (1 - OWN_SHARE) * shared).sqrt().clamp(min=LEAST_SCALE)
        return int(count), scale.float()


def latents_for(images: int, dims: int) -> int:
    """How many latents a number of good images and of dimensions of y allow.

    >>> latents_for(600, 87_040), latents_for(20, 87_040), latents_for(600, 280_000)
    (128, 15, 50)
    """
    return max(1, min(LATENTS, math.floor(images / IMAGES_A_LATENT), LARGEST // dims))
