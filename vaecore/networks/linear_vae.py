"""A linear VAE with one shared scale: probabilistic PCA by another road, and the proof that the bound is right."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods import Gaussian, SharedGaussianLikelihood
from vaecore.networks.blocks import StandardPrior


class LinearVAE(StandardPrior, nn.Module):
    """q(z|y) = N(V (y - mu), diag(exp 2s)), p(y|z) = N(W z + mu, sigma^2 I).

    At its optimum the bound is tight and equals probabilistic PCA's log-likelihood.

    Source: Lucas, Tucker, Grosse, Norouzi 2019, "Don't blame the ELBO!", section 4; Tipping and Bishop 1999.
    """

    def __init__(self, *, channels: int, size: tuple[int, int], latents: int) -> None:
        """Make encoder and decoder for images of exactly `size`."""
        super().__init__()
        self.shape = (channels, *size)
        dims = channels * size[0] * size[1]
        self.latent_shape = (latents, 1, 1)
        self.likelihood = SharedGaussianLikelihood()
        self.encoder = nn.Linear(dims, latents, bias=False)
        self.decoder = nn.Linear(latents, dims, bias=False)
        self.offset = nn.Parameter(torch.zeros(dims))
        self.log_scale = nn.Parameter(torch.zeros(latents))

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y): the same scale for every image."""
        mean = self.encoder(y.flatten(1) - self.offset)[:, :, None, None]
        return DiagonalGaussian(mean, self.log_scale[None, :, None, None].expand_as(mean))

    def decode(self, z: Float[Tensor, "B Z 1 1"]) -> Gaussian:
        """p(y | z)."""
        mean: Tensor = self.decoder(z.flatten(1)) + self.offset
        distribution: Gaussian = self.likelihood(mean.unflatten(1, self.shape))
        return distribution

    @torch.no_grad()
    def set_to_optimum(self, images: Float[Tensor, "N C H W"]) -> float:
        """Put the closed-form maximum-likelihood solution into the weights.

        Args:
            images: Training set; more images than latents, float64 for exact figures.

        Returns:
            Probabilistic PCA's mean log-likelihood of the training set, in nats per image.

        Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", eqs. 4, 7 and 8.
        """
        data = images.flatten(1)
        count, dims = data.shape
        latents = self.latent_shape[0]
        mean = data.mean(dim=0)
        eigenvalues, vectors = torch.linalg.eigh((data - mean).T @ (data - mean) / count)
        eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
        variance = eigenvalues[latents:].mean()
        weight = vectors[:, :latents] * (eigenvalues[:latents] - variance).clamp(min=0).sqrt()
        precision = weight.square().sum(dim=0) + variance  # M = W'W + sigma^2 I is diagonal in principal axes
        self.offset.copy_(mean)
        self.decoder.weight.copy_(weight)
        self.encoder.weight.copy_((weight / precision).T)
        self.log_scale.copy_(0.5 * (variance / precision).log())
        self.likelihood.log_scale.copy_(0.5 * variance.log())
        log_det = eigenvalues[:latents].log().sum() + (dims - latents) * variance.log()
        return float(-0.5 * (dims * math.log(2 * math.pi) + log_det + dims))
