"""The scoring graph: an image file's pixels in, its bound out. This module is what gets exported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from vaecore.experts import Combination, Expert
from vaecore.networks.class_prior import ClassPrior
from vaecore.networks.two_level_vae import TwoLevelVAE
from vaecore.representations import Features, Representation
from vaecore.representations.complexity import Typicality, code_length, density_offset
from vaecore.representations.image_format import ImageFormat, resize

ScoreKind = Literal["places", "elbo", "ratio", "iwae", "complexity"]

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
APART = {"expert_score": "standard deviations of good images, of each expert"}
OF_GOOD_IMAGES = "standard deviations of good images"


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
    """Pre-processing, network, bound, experts and post-processing of one trained model."""

    def __init__(
        self,
        model: nn.Module,
        image_format: ImageFormat,
        representation: Representation,
        *,
        kind: ScoreKind = "elbo",
        experts: Sequence[nn.Module] = (),
        combination: Combination | None = None,
        typicality: Typicality | None = None,
    ) -> None:
        """Wrap a network that satisfies `LatentVariableModel`.

        Args:
            model: The trained network.
            image_format: Of the files it was trained on.
            representation: What its y is made of; images of any size are resized inside the graph.
            kind: What the score is made of: "places", the bound's distortion by place and the experts' maps, as the
                combination says; "elbo", -ELBO per dimension; "ratio", how much the bound gains from the lower of two
                levels of latents (`bound_from_above`); "iwae", the importance-weighted bound; "complexity", the
                distance from good images' likelihood and complexity.
            experts: Further densities of the same y.
            combination: Of the bound's map and theirs, in this order; with it, and only with it, the kind is "places".
            typicality: Of likelihood and complexity together; the map is corrected for complexity, too
                (`vaecore.representations.complexity`). With it, and only with it, the kind is "complexity".

        Raises:
            ValueError: The kind does not go with the rest.
        """
        super().__init__(model, image_format)
        if kind == "ratio" and not isinstance(model, TwoLevelVAE):
            msg = "a likelihood ratio between levels needs a network with two levels of latents"
            raise ValueError(msg)
        if typicality is not None and not representation.drawable:
            msg = "only a bound on pixels can be corrected for complexity: features have no code length"
            raise ValueError(msg)
        if (combination is not None) != (kind == "places") or (typicality is not None) != (kind == "complexity"):
            msg = f"the score '{kind}' needs what it is made with, and nothing else"
            raise ValueError(msg)
        self.kind = kind
        self.representation = representation
        self.experts = nn.ModuleList(experts)
        self.combination = combination
        self.typicality = typicality

    @property
    def outputs(self) -> dict[str, str]:
        """Names and units of what `forward` returns, in order."""
        units = {**DRAWN, **SCORED} if self.representation.drawable else dict(SCORED)
        if self.combination is not None:
            units |= {"score": OF_GOOD_IMAGES, "anomaly_map": f"{OF_GOOD_IMAGES} at the same place"} | APART
        if isinstance(self.model, ClassPrior):
            units |= LABELLED
        if self.typicality is not None:
            units["score"] = "standard deviations of good images, to either side"
        return units

    def to_y(self, image: Tensor) -> Float[Tensor, "N C h w"]:
        """Pixels (N, H, W, C) to y."""
        y: Tensor = self.representation(self.image_format.to_unit(image))
        return y

    def bound(self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"]) -> BoundMaps:
        """The bound of y."""
        return bound_maps(self.network, y, noise)

    def maps_by_place(self, extracted: Float[Tensor, "N D h w"], maps: BoundMaps) -> list[Float[Tensor, "N h w"]]:
        """What the combination is made of: the bound's distortion by place, in nats, and each expert's map."""
        features, experts = cast("Features", self.representation), cast("Iterable[Expert]", self.experts)
        own = self.representation.sum_by_place(maps.distortion)
        return [own, *(expert(features.look(extracted, expert.view)) for expert in experts)]

    def score_without_experts(
        self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"], maps: BoundMaps
    ) -> tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]:
        """The anomaly map on the finest grid of y, and the score, as `kind` says, where that is of the bound alone."""
        if self.typicality is not None:
            complexity = code_length(y)
            return self._places(maps, complexity), self.typicality(self.pair(maps, complexity))
        if self.kind == "iwae":
            return self._places(maps), -iwae(self.network, y, noise, maps=maps) / self.representation.dims
        places = self._places(self._gain(y, noise, maps) if self.kind == "ratio" else maps)
        return places, places.sum(dim=(1, 2)) / self.representation.dims

    def _places(self, maps: BoundMaps, complexity: Float[Tensor, "N C h w"] | None = None) -> Float[Tensor, "N h w"]:
        """-ELBO by place, in nats, less the complexity there if that is corrected for; its sum is the whole."""
        distortion = maps.distortion
        if complexity is not None:
            distortion = distortion + self._offset - complexity
        return attribution(self.representation.sum_by_place(distortion), maps.rate)

    def _gain(self, y: Float[Tensor, "N C h w"], noise: Float[Tensor, "N S Z h w"], maps: BoundMaps) -> BoundMaps:
        """By how much the bound is tighter than that from the upper level of latents alone."""
        above = bound_from_above(cast("HierarchicalModel", self.model), maps, y, noise)
        return maps._replace(distortion=above.distortion - maps.distortion, kl=above.kl - maps.kl)

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
            noise: Standard normal numbers, keyed by each file's sha256 so that its score repeats. Of a model whose
                bound is exact they make no difference.

        Returns:
            `outputs`, at the input's height and width: restored (N, H, W, C) pixels like the input's, the mean of
            p(y|z) averaged over samples; restored_scale (N, H, W, C); anomaly_map (N, H, W); elbo, rate, distortion
            and score (N,); embedding (N, Z), the posterior mean averaged over the grid; of several experts,
            expert_score (N, E); of images with classes, label_probability (N, K).
        """
        return self.score_extracted(self.representation.extract(self.image_format.to_unit(image)), image, noise)

    def score_extracted(
        self, extracted: Float[Tensor, "N D h w"], image: Tensor, noise: Float[Tensor, "N S Z h w"]
    ) -> dict[str, Tensor]:
        """The rest of `forward`, from what y is made of."""
        full_size = (image.shape[1], image.shape[2])
        y = self.representation.normalise(extracted)
        maps = self.bound(y, noise)
        total = maps.total()
        apart: dict[str, Tensor] = {}
        if self.combination is None:
            shown, score = self.score_without_experts(y, noise, maps)
        else:
            summary = self.representation.summarise(extracted)
            shown, score, apart["expert_score"] = self.combination(self.maps_by_place(extracted, maps), summary)
        scored = {
            "anomaly_map": resize(shown.unsqueeze(1), full_size).squeeze(1),
            "elbo": total.value,
            "rate": total.rate,
            "distortion": total.distortion,
            "score": score,
            "embedding": maps.posterior.mean.mean(dim=(2, 3)),
            "embedding_scale": _scale_of_mean(maps.posterior),
        }
        scored |= apart
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
