"""The scoring graph: an image file's pixels in, its bound out. This module is what gets exported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import LatentVariableModel, bound_maps
from vaecore.image_format import ImageFormat, resize

# Rounding to levels, a little off the half: resampling often lands exactly on it, and then torch and ONNX Runtime would
# round the last bit's noise to different levels.
OFF_HALF = 0.5137


class Scores(NamedTuple):
    """Outputs of the model-file contract, in graph order."""

    restored: Tensor  # (N, H, W, C), pixels like the input's: the mean of p(y|z), averaged over samples
    restored_scale: Float[Tensor, "N H W C"]  # predicted standard deviation, in levels
    anomaly_map: Float[Tensor, "N H W"]  # nats per pixel of the model's y
    elbo: Float[Tensor, " N"]  # nats
    rate: Float[Tensor, " N"]  # nats
    distortion: Float[Tensor, " N"]  # nats
    score: Float[Tensor, " N"]  # -ELBO per dimension: higher = more abnormal
    embedding: Float[Tensor, "N Z"]  # posterior mean, averaged over the grid


class ScoringGraph(nn.Module):
    """Pre-processing, network, bound and post-processing of one trained model."""

    def __init__(self, model: nn.Module, image_format: ImageFormat, size: tuple[int, int]) -> None:
        """Wrap a network that satisfies `LatentVariableModel`.

        Args:
            model: The trained network.
            image_format: Of the files it was trained on.
            size: Height and width that the network works at; other sizes are resized inside the graph.
        """
        super().__init__()
        self.model = model
        self.image_format = image_format
        self.size = size

    @property
    def dims(self) -> int:
        """D, the number of dimensions of y as the model sees it."""
        return self.image_format.channels * self.size[0] * self.size[1]

    def to_y(self, image: Tensor) -> Float[Tensor, "N C h w"]:
        """Pixels (N, H, W, C) to y at the working size; on the grid of levels where the likelihood is discrete."""
        y = resize(self.image_format.to_unit(image), self.size)
        network: LatentVariableModel = self.model  # type: ignore[assignment]  # a Protocol that modules satisfy
        if network.likelihood.discrete:
            y = torch.floor(y * self.image_format.maximum + OFF_HALF) / self.image_format.maximum
        return y

    def forward(self, image: Tensor, noise: Float[Tensor, "N S Z h w"]) -> Scores:
        """Score a batch.

        Args:
            image: Pixels (N, H, W, C), uint8 or uint16 as the model's format says.
            noise: Standard normal numbers, keyed by each file's sha256 so that its score repeats.

        Returns:
            All outputs of the contract, at the input's height and width.
        """
        full_size = (image.shape[1], image.shape[2])
        network: LatentVariableModel = self.model  # type: ignore[assignment]  # a Protocol that modules satisfy
        y = self.to_y(image)
        maps = bound_maps(network, y, noise)
        bound = maps.total()
        samples = noise.shape[1]
        mean = maps.likelihood.mean.unflatten(0, (-1, samples)).mean(dim=1)
        stddev = maps.likelihood.stddev.unflatten(0, (-1, samples)).mean(dim=1)
        stddev = resize(stddev, full_size).permute(0, 2, 3, 1)
        return Scores(
            restored=self.image_format.from_unit(resize(mean, full_size)),
            restored_scale=stddev * self.image_format.maximum,
            anomaly_map=resize(maps.attribution().unsqueeze(1), full_size).squeeze(1),
            elbo=bound.value,
            rate=bound.rate,
            distortion=bound.distortion,
            score=-bound.value / self.dims,
            embedding=maps.posterior.mean.mean(dim=(2, 3)),
        )


class DecoderGraph(nn.Module):
    """Latents in, the mean image out: for sampling what a model thinks normal looks like."""

    def __init__(self, model: nn.Module, image_format: ImageFormat) -> None:
        """Wrap the decoder of a trained network."""
        super().__init__()
        self.model = model
        self.image_format = image_format

    def forward(self, latent: Float[Tensor, "N Z h w"]) -> Tensor:
        """Decode to pixels (N, H, W, C) at the working size."""
        network: LatentVariableModel = self.model  # type: ignore[assignment]  # a Protocol that modules satisfy
        return self.image_format.from_unit(network.decode(latent).mean)


@torch.no_grad()
def closed_form_variance(model: LatentVariableModel, batches: Iterable[Tensor], generator: torch.Generator) -> Tensor:
    """Mean squared error over a data set under the posterior: the shared scale's optimum, frozen at export.

    Args:
        model: The trained network.
        batches: y tensors (B, C, H, W), gone through once.
        generator: Source of the latent noise.

    Returns:
        The variance, a scalar tensor.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for y in batches:
        noise = torch.randn((len(y), 1, *model.latent_shape), generator=generator).to(y.device)
        mean = bound_maps(model, y, noise).likelihood.mean
        total += (y - mean).square().sum().double().cpu()
        count += y.numel()
    return (total / count).float()
