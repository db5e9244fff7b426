"""How a network learns to label pixels: the bound of a conditional VAE, Dice on held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.data.splits import SplitName
from pipelines.restoration.quality import compare_labels
from pipelines.training.crops.fit import CropRecipe, FitCrops
from vaecore.graphs.segmentation import segmentation_loss
from vaecore.networks import ConditionalVAE

LIGHT = 0.1  # of the range of values: how far training shifts the brightness


class FitSegmenter(FitCrops[ConditionalVAE]):
    """Raise the bound on log p(labels | image); watch Dice on the middles of held-out images."""

    watched = "select_dice"
    unit = "held-out Dice {:.3f}"

    def __init__(
        self,
        network: ConditionalVAE,
        photos: Photos,
        split: Mapping[SplitName, Sequence[int]],
        gain: tuple[float, float],
        recipe: CropRecipe,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            photos: Images with labels.
            split: Which of them are trained on ("train") and looked at ("select").
            gain: Training brightens and darkens images by factors between these.
            recipe: Steps, batch, crop.
        """
        super().__init__(network, photos, split, recipe, network.multiple)
        self._gain = gain

    def pair(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] and their label maps (B, 1, H, W), from samples as they are on disk."""
        return self.to_unit(samples[..., :-1]), samples[..., -1:].permute(0, 3, 1, 2).to(torch.float32)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides light and latents."""
        c, y = self.pair(crops)
        generator = self.generator(key)
        draws = torch.rand((2, len(c), 1, 1, 1), generator=generator, device=generator.device).to(c)
        low, high = self._gain
        lit = c * (low * (high / low) ** draws[0]) + LIGHT * (2 * draws[1] - 1)
        cells = [length // self.multiple for length in c.shape[-2:]]
        shape = (len(c), self.network.latent_channels, *cells)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(c)
        return segmentation_loss(self.network, lit.contiguous(memory_format=torch.channels_last), y, noise)

    def validation_step(self, middle: Tensor, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Dice at the mean of the prior, mean over the classes that are there and over images."""
        logits, y = self.predict(middle)
        labels = logits.argmax(dim=1, keepdim=True)
        made, true = (each[0, 0].cpu().numpy().astype(np.uint8) for each in (labels, y))
        found = compare_labels(made, true, self.network.classes)["dice"]
        log_p = self.network.likelihood(logits).log_prob(y).mean()
        self.log("select_dice", found, batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", log_p, batch_size=1, on_epoch=True)

    def predict(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) at the mean of the prior, and the true label maps."""
        c, y = self.pair(samples)
        cells = [length // self.multiple for length in c.shape[-2:]]
        return self.network(c, c.new_zeros((len(c), self.network.latent_channels, *cells))), y
