"""The scoring graph: an image file's pixels in, its bound out. This module is what gets exported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import (
    BoundMaps,
    DiagonalGaussian,
    HierarchicalModel,
    LatentVariableModel,
    attribution,
    bound_from_above,
    bound_maps,
    iwae,
)
from vaecore.networks.class_prior import ClassPrior
from vaecore.networks.two_level_vae import TwoLevelVAE
from vaecore.representations import Representation
from vaecore.representations.complexity import code_length, density_offset
from vaecore.representations.image_format import ImageFormat, resize
from vaecore.representations.localisation import Localisation
from vaecore.representations.pooling import PlaceStatistics, Pooling, Typicality

ScoreKind = Literal["elbo", "ratio", "iwae"]

# Outputs of the model-file contract with their units, in graph order.
DRAWN = {"restored": "image levels", "restored_scale": "image levels"}  # where y is an image
SCORED = {
    "anomaly_map": "nats per place of y",
    "elbo": "nats",
    "rate": "nats",
    "distortion": "nats",
    "score": "nats per dimension, higher is more abnormal",
    "embedding": "prior standard deviations",
    "embedding_scale": "prior standard deviations; of the latents' mean over the grid, whose mean is the embedding",
}
LABELLED = {"label_probability": "probability of each class"}  # where images have classes
STANDARDISED = "standard deviations of good images at the same place"


class _Graph(nn.Module):
    """A network that satisfies `LatentVariableModel`, and the format of its images."""

    def __init__(self, model: nn.Module, image_format: ImageFormat) -> None:
        super().__init__()
        self.model = model
        self.image_format = image_format

    @property
    def network(self) -> LatentVariableModel:
        """The network as the bound sees it."""
        return self.model  # type: ignore[return-value]  # a Protocol that modules satisfy


class ScoringGraph(_Graph):
    """Pre-processing, network, bound and post-processing of one trained model."""

    def __init__(
        self,
        model: nn.Module,
        image_format: ImageFormat,
        representation: Representation,
        pooling: Pooling | None = None,
        statistics: PlaceStatistics | None = None,
        typicality: Typicality | None = None,
        localisation: Localisation | None = None,
        map_statistics: PlaceStatistics | None = None,
        *,
        kind: ScoreKind = "elbo",
    ) -> None:
        """Wrap a network that satisfies `LatentVariableModel`.

        Args:
            model: The trained network.
            image_format: Of the files it was trained on.
            representation: What its y is made of; images of any size are resized inside the graph.
            pooling: From places to the score; default: their mean, so that the score is -ELBO per dimension.
            statistics: Of good images at each place, where the images show an aligned object.
            typicality: Of likelihood and complexity together: the score is then the distance from it, and the map is
                corrected for complexity (`vaecore.representations.complexity`). y must be pixels.
            localisation: What the anomaly map is made of; default: the bound itself, like the score.
            map_statistics: Of good images' maps at each place, as `statistics`.
            kind: What the score is made of: "elbo"; "ratio", how much the bound gains from the lower of two levels of
                latents (`bound_from_above`); "iwae", the importance-weighted bound of the image as a whole.

        Raises:
            ValueError: A typicality, but y is not the image; a ratio, but one level of latents.
        """
        super().__init__(model, image_format)
        if kind == "ratio" and not isinstance(model, TwoLevelVAE):
            msg = "a likelihood ratio between levels needs a network with two levels of latents"
            raise ValueError(msg)
        self.kind = kind
        if typicality is not None and not representation.drawable:
            msg = "only a bound on pixels can be corrected for complexity: features have no code length"
            raise ValueError(msg)
        self.typicality = typicality
        self.localisation = localisation
        self.map_statistics = map_statistics or PlaceStatistics()
        self.representation = representation
        self.pooling = pooling or Pooling()
        self.statistics = statistics or PlaceStatistics()

    @property
    def outputs(self) -> dict[str, str]:
        """Names and units of what `forward` returns, in order."""
        units = {**DRAWN, **SCORED} if self.representation.drawable else dict(SCORED)
        if isinstance(self.model, ClassPrior):
            units |= LABELLED
        if self.localisation is not None:
            units["anomaly_map"] = "nats per place of y, at a scale between the place's and the channel's"
        if self.typicality is not None:
            units["score"] = "standard deviations of good images, to either side"
        elif self.statistics.used:
            units["score"] = STANDARDISED
        if self.map_statistics.used:
            units["anomaly_map"] = STANDARDISED
        return units

    def to_y(self, image: Tensor) -> Float[Tensor, "N C h w"]:
        """Pixels (N, H, W, C) to y."""
        y: Tensor = self.representation(self.image_format.to_unit(image))
        return y

    def bound(self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"]) -> BoundMaps:
        """The bound of y, weighted as the representation says."""
        return bound_maps(self.network, y, noise, weight=self.representation.weight)

    def places(self, maps: BoundMaps, complexity: Float[Tensor, "N C h w"] | None = None) -> Float[Tensor, "N h w"]:
        """-ELBO by place, in nats, less the complexity there if that is corrected for; its sum is the whole."""
        distortion = maps.distortion
        if complexity is not None:
            distortion = distortion + self._offset - complexity
        return attribution(self.representation.sum_by_place(distortion), maps.rate)

    def select_bound(
        self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"], maps: BoundMaps
    ) -> BoundMaps:
        """Return what the score is made of: the bound, or by how much it is tighter than that from the upper level."""
        if self.kind != "ratio":
            return maps
        model = cast("HierarchicalModel", self.model)
        above = bound_from_above(model, maps, y, noise, weight=self.representation.weight)
        return maps._replace(distortion=above.distortion - maps.distortion, kl=above.kl - maps.kl)

    def localise(
        self, y: Float[Tensor, "N C h w"], maps: BoundMaps, samples: int, places: Float[Tensor, "N h w"]
    ) -> Float[Tensor, "N h w"]:
        """Return the anomaly map: `places`, or what the localisation makes of the same prediction."""
        if self.localisation is None:
            return places
        return self.representation.sum_by_place(self.localisation(y, maps, samples, self.representation.local_weight))

    def pool_score(
        self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"], maps: BoundMaps, usual: Tensor
    ) -> Tensor:
        """Return the score (N,): places pooled, or the importance-weighted bound, which has none."""
        if self.kind != "iwae":
            return self.pooling(usual)
        bound = iwae(self.network, y, noise, weight=self.representation.weight, maps=maps)
        return -bound / self.representation.dims

    def standardise_places(self, places: Float[Tensor, "N h w"]) -> Float[Tensor, "N h w"]:
        """Return what is pooled: `places` per dimension of y, standardised at each place if that was learned."""
        usual: Tensor = self.statistics(places * (places.shape[1] * places.shape[2] / self.representation.dims))
        return usual

    def pair(self, maps: BoundMaps, complexity: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 2"]:
        """-ELBO and complexity, both in nats per dimension, as probabilities of levels."""
        unlikely = -maps.total().value / self.representation.dims + self._offset
        return torch.stack([unlikely, complexity.mean(dim=(1, 2, 3))], dim=1)

    @property
    def _offset(self) -> float:
        """From a density to the probability of a level; nothing where the likelihood is discrete already."""
        return 0.0 if self.network.likelihood.discrete else density_offset()

    def forward(self, image: Tensor, noise: Float[Tensor, "N S Z h w"]) -> dict[str, Tensor]:
        """Score a batch.

        Args:
            image: Pixels (N, H, W, C), uint8 or uint16 as the model's format says.
            noise: Standard normal numbers, keyed by each file's sha256 so that its score repeats.

        Returns:
            `outputs`, at the input's height and width: restored (N, H, W, C) pixels like the input's, the mean of
            p(y|z) averaged over samples; restored_scale (N, H, W, C); anomaly_map (N, H, W); elbo, rate, distortion
            and score (N,); embedding (N, Z), the posterior mean averaged over the grid; of images with classes,
            label_probability (N, K).
        """
        full_size = (image.shape[1], image.shape[2])
        y = self.to_y(image)
        maps = self.bound(y, noise)
        total = maps.total()
        complexity = None if self.typicality is None else code_length(y)
        places = self.places(self.select_bound(y, noise, maps), complexity)
        usual = self.standardise_places(places)
        shown = self.map_statistics(self.localise(y, maps, noise.shape[1], places))
        score = self.pool_score(y, noise, maps, usual)
        if self.typicality is not None and complexity is not None:
            score = self.typicality(self.pair(maps, complexity))
        scored = {
            "anomaly_map": resize(shown.unsqueeze(1), full_size).squeeze(1),
            "elbo": total.value,
            "rate": total.rate,
            "distortion": total.distortion,
            "score": score,
            "embedding": maps.posterior.mean.mean(dim=(2, 3)),
            "embedding_scale": _scale_of_mean(maps.posterior),
        }
        if isinstance(self.model, ClassPrior):
            scored["label_probability"] = self.model.log_label(maps.posterior).exp()
        return {**self._drawn(maps, noise.shape[1], image), **scored} if self.representation.drawable else scored

    def _drawn(self, maps: BoundMaps, samples: int, image: Tensor) -> dict[str, Tensor]:
        mean = maps.likelihood.mean.unflatten(0, (-1, samples)).mean(dim=1)
        stddev = maps.likelihood.stddev.unflatten(0, (-1, samples)).mean(dim=1)
        mean, stddev = self.representation.draw(mean, stddev, self.image_format.to_unit(image))
        restored_scale = stddev.permute(0, 2, 3, 1) * self.image_format.maximum
        return {"restored": self.image_format.from_unit(mean), "restored_scale": restored_scale}


def _scale_of_mean(posterior: DiagonalGaussian) -> Float[Tensor, "B Z"]:
    """Standard deviation of each latent's mean over the cells, which are independent under q: sqrt(sum s^2) / cells.

    Not the mean of the cells' own: a mean of many is known more closely than any of them.
    """
    _, _, height, width = posterior.log_scale.shape
    return torch.exp(2 * posterior.log_scale).sum(dim=(2, 3)).sqrt() / (height * width)


class DecoderGraph(_Graph):
    """Latents in, the mean image out: for sampling what a model thinks normal looks like."""

    def forward(self, latent: Float[Tensor, "N Z h w"]) -> Tensor:
        """Decode to pixels (N, H, W, C) at the working size."""
        if isinstance(self.model, TwoLevelVAE):  # the upper level decides what the lower noise becomes
            latent = self.model.from_above(latent[:, None], latent[:, None])[:, 0]
        return self.image_format.from_unit(self.network.decode(latent).mean)


@torch.no_grad()
def squared_error(model: LatentVariableModel, batches: Iterable[Tensor], generator: torch.Generator) -> Tensor:
    """Mean squared error of each channel under the posterior, over a data set.

    Its mean is the shared scale's optimum, frozen at export; its root is how far off a channel usually is.

    Args:
        model: The trained network.
        batches: y tensors (B, C, H, W), gone through once.
        generator: Source of the latent noise.

    Returns:
        (C,) variances.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for y in batches:
        noise = torch.randn((len(y), 1, *model.latent_shape), generator=generator).to(y.device)
        mean = bound_maps(model, y, noise).likelihood.mean
        total = total + (y - mean).square().mean(dim=(2, 3)).sum(dim=0).double().cpu()
        count += len(y)
    return (total / count).float()
