"""A restorer in adversarial training: restored crops are to pass for clean ones, given the damaged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.data.splits import SplitName
from pipelines.training.adversary import AdversarialCheckpoints, Adversary, in_force
from pipelines.training.crops.fit import CropRecipe
from pipelines.training.crops.restorer_module import Damaged, FitRestorer
from vaecore.adversarial import Kind
from vaecore.graphs.restoration import restoration_loss
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposition:
    """What the adversarial term is to be.

    Attributes:
        weight: In force of the error.
        kind: Of loss.
        alone: Share of the steps before it sets in.
    """

    weight: float
    kind: Kind = "hinge"
    alone: float = 0.0


class FitAdversarialRestorer(AdversarialCheckpoints, FitRestorer):
    """As `FitRestorer`, with a discriminator that sees the damaged image, enlarged, beside the clean or restored one.

    Source: the conditional PatchGAN of Isola et al. 2017, "Image-to-image translation with conditional adversarial
    networks", with R1 instead of batch normalisation and dropout.
    """

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        photos: Photos,
        split: Mapping[SplitName, Sequence[int]],
        damaged: Damaged,
        recipe: CropRecipe,
        *,
        opposition: Opposition,
    ) -> None:
        """Tie a network to its data, its budget and its adversary. See `FitRestorer`."""
        super().__init__(network, likelihood, photos, split, damaged, recipe)
        self.opposition = opposition
        self.adversary = Adversary(2 * network.outputs, opposition.kind, recipe.seed)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """The restorer's loss; the discriminator takes a step of its own."""
        y, c = self.pair(self.to_unit(crops), self.generator(key))
        predicted = self._predict(c)
        error = restoration_loss(predicted, y)
        force = in_force(key, self.recipe.steps, self.opposition.alone)
        if force is None:
            return error
        given = self.network.enlarged(c)
        real, made = (torch.cat([given, each], dim=1) for each in (y, predicted.mean.detach()))
        assert self.adversary is not None  # noqa: S101 - ours, always
        self.adversary.learn(real, made, key)
        weight = force * self.opposition.weight
        return error + self.adversary.term(error, predicted.mean, predicted.mean, weight, given)
