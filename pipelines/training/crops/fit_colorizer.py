"""How a network learns to colour: the bound of a conditional VAE on chroma, PSNR on held-out images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.data.splits import SplitName
from pipelines.training.crops.fit import CropRecipe, FitCrops
from pipelines.training.loop import repeatable
from vaecore.graphs.colorization import ColorizationGraph, colorization_loss, to_chroma, to_luma
from vaecore.graphs.restoration import psnr
from vaecore.likelihoods import Gaussian
from vaecore.networks import Colorizer
from vaecore.representations.image_format import resize
from vaecore.tasks import Colorization

PATIENCE = 8  # checks without a better one that end training: a few hundred images are soon learned by heart


class FitColorizer(FitCrops[Colorizer]):
    """Raise the bound on log p(chroma | luma); watch the PSNR of held-out images, coloured at the mean of the prior."""

    watched = "select_psnr"
    unit = "held-out PSNR {:.2f} dB"
    upright = True  # the sky is above
    check_side = None  # images are looked at as a whole, as users' are

    def __init__(
        self,
        network: Colorizer,
        photos: Photos,
        split: Mapping[SplitName, Sequence[int]],
        task: Colorization,
        recipe: CropRecipe,
        patience: int | None = None,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            photos: Colour images, the shorter side of each `task.short_side` long.
            split: Which of them are trained on ("train") and looked at ("select").
            task: Says how large the network's images are, and training's views.
            recipe: Steps, batch, crop.
            patience: Checks without a better one that end training; default: `PATIENCE`.
        """
        super().__init__(network, photos, split, recipe, 1)
        self.patience = patience or PATIENCE
        self._task = task

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides the view, which is resized to the network's, and the latents."""
        generator = self.generator(key)
        shares = torch.rand(4, generator=generator, device=generator.device).tolist()
        least, spans = self._task.least_view, []
        for length, size, place in zip(crops.shape[1:3], shares[:2], shares[2:], strict=True):
            side = math.ceil(length * (least + (1 - least) * size))
            start = round((length - side) * place)
            spans.append(slice(start, start + side))
        y = resize(self.to_unit(crops[:, spans[0], spans[1]]), (self._task.side, self._task.side))
        noise = torch.randn((len(y), self.network.latent_channels, 1, 1), generator=generator, device=generator.device)
        side = self._task.side // self._task.strides[0]
        chroma = resize(to_chroma(y), (side, side))
        with repeatable(self.recipe.seed * 2_000_000_011 + key):
            return colorization_loss(self.network, to_luma(y), chroma, noise.to(y))

    def validation_step(self, middle: Tensor, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """PSNR at the mean of the prior, and how far the truth is from it."""
        y = self.to_unit(middle)
        predicted = self.predict(y)
        self.log("select_psnr", psnr(predicted.mean, y).mean(), batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", predicted.log_prob(y).mean(), batch_size=1, on_epoch=True)

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:  # noqa: ARG002 - as of other trainings
        """The middle of one image (1, 3, H, W), and its colours as the graph gives them from its luma."""
        y = self.to_unit(self.middle(image))
        return y, self.predict(y)

    def predict(self, y: Tensor, noise: Tensor | None = None) -> Gaussian:
        """Colours of colour images (B, 3, H, W), from their luma alone: at the mean of the prior, or a sample."""
        graph = ColorizationGraph(self.network, self._task.side).to(y.device)
        if noise is None:
            noise = y.new_zeros(len(y), self.network.latent_channels)
        found = graph(to_luma(y).permute(0, 2, 3, 1), noise)
        mean, scale = (found[name].permute(0, 3, 1, 2) for name in ("restored", "restored_scale"))
        return Gaussian(mean, scale.log())
