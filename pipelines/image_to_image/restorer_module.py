"""Restorers in training: damage made on the device, PSNR on held-out images; plain, or with a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.image_to_image.fit import CropRecipe, FitCrops
from pipelines.training.adversary import AdversarialTraining, Adversary, Opposition
from vaecore.graphs.colorization import to_luma
from vaecore.graphs.restoration import psnr, restoration_loss
from vaecore.likelihoods import Gaussian, GaussianLikelihood
from vaecore.networks import Restorer

GREY = 4  # one of so many images of colour is made grey first: a model of colour images is given grey ones, too

Damaged = Callable[[Tensor, torch.Generator], Tensor]  # y to c, as strongly as chance will have it


class FitRestorer(AdversarialTraining, FitCrops[Restorer]):
    """Bring restored crops near clean ones; watch PSNR on the middles of held-out images.

    With an adversarial term, a discriminator sees the damaged image, enlarged, beside the clean or restored one.

    Source: the conditional PatchGAN of Isola et al. 2017, "Image-to-image translation with conditional adversarial
    networks", with R1 instead of batch normalisation and dropout.
    """

    watched = "select_psnr"
    unit = "held-out PSNR {:.2f} dB"

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        damaged: Damaged,
        recipe: CropRecipe,
        opposition: Opposition | None = None,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            likelihood: From its output to p(y|c).
            images: Clean images.
            split: Which of them are trained on ("train") and looked at ("select").
            damaged: From clean crops (B, C, H, W) in [0, 1] to what the network is given.
            recipe: Steps, batch, crop.
            opposition: The adversarial term, if any.
        """
        super().__init__(network, images, split, recipe, network.multiple * network.upscale)
        self.likelihood, self._damaged = likelihood, damaged
        self.adversary = None
        if opposition is not None:
            self.adversary = Adversary(2 * network.outputs, opposition, recipe.seed)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides the damage. A discriminator takes a step of its own."""
        y, c = self.damage_crops(self.to_unit(crops), self.make_generator(key))
        predicted = self._predict(c)
        error = restoration_loss(predicted, y)
        if self.adversary is None or (weight := self.adversary.opposition.weight_at(key, self.recipe.steps)) is None:
            return error
        restored, given = predicted.mean, self.network.enlarged(c)
        return error + self.adversary.oppose(
            key, weight, real=y, judged=restored, error=error, restored=restored, given=given
        )

    def validation_step(self, middle: Tensor, index: int) -> None:
        """PSNR under damage that is the same at every check."""
        y, c = self._damage_one(self.to_unit(middle), 10**9 + index)
        predicted = self._predict(c)
        self.log("select_psnr", psnr(predicted.mean, y).mean(), batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", predicted.log_prob(y).mean(), batch_size=1, on_epoch=True)

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:
        """The middle of one image (1, C, H, W), and p(y|c) of it under the damage that the key decides."""
        y, c = self.damage_middle(image, key)
        return y, self._predict(c)

    def damage_middle(self, image: int, key: int) -> tuple[Tensor, Tensor]:
        """Return the middle of one image (1, C, H, W), and the same under the damage that the key decides."""
        return self._damage_one(self.to_unit(self.read_middle(image)), key)

    def _damage_one(self, y: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return one image and the same damaged; as grey, where the key says so."""
        return self._damage(y, torch.tensor([key % GREY == 0]), self.make_generator(key))

    def damage_crops(self, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return clean crops and damaged ones, some as grey: the damage of a grey image is equal in all channels.

        A network that has seen noise of colour only takes that of a grey image for detail.
        """
        grey = torch.rand(len(y), generator=generator, device=generator.device) < 1 / GREY
        return self._damage(y, grey, generator)

    def _damage(self, y: Tensor, grey: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images and damaged ones, as grey where that is said."""
        if y.shape[1] == 1 or not grey.any():
            return y, self._damaged(y, generator)
        y = torch.where(grey.to(y.device)[:, None, None, None], to_luma(y), y)
        alone = self._damaged(y[grey][:, :1], generator).expand(-1, 3, -1, -1)
        c = alone.new_empty((len(y), *alone.shape[1:]))
        c[grey] = alone
        if not grey.all():
            c[~grey] = self._damaged(y[~grey], generator)
        return y, c

    def _predict(self, c: Tensor) -> Gaussian:
        predicted: Gaussian = self.likelihood(self.model(c.contiguous(memory_format=torch.channels_last)))
        return predicted
