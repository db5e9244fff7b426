"""What an image-to-image network is trained with: crops, damage made on the device, PSNR on held-out images."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.data import SplitName
from pipelines.loop import Trainable
from pipelines.photos import Photos
from pipelines.tiles import padded
from vaecore.likelihoods import Gaussian, GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.restoration import psnr, restoration_loss

WARM_STEPS, TRIAL_STEPS = 2, 8
CHECK_IMAGES = 32
CHECK_SIDE = 256  # pixels of each held-out image, from its middle

Damaged = Callable[[Tensor, torch.Generator], Tensor]  # y to c, as strongly as chance will have it


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorerRecipe:
    """Settings of one training."""

    steps: int
    batch: int = 16
    crop: int = 64  # side of y in training
    learning_rate: float = 1e-3
    seed: int = 0


def steps_within(seconds: float, module: FitRestorer, device: str) -> int:
    """How many steps take so long here, by a few; the network's weights are put back."""
    before = copy.deepcopy(module.model.state_dict())
    module.to(device)
    optimiser = torch.optim.AdamW(module.model.parameters(), lr=1e-6)
    batches = _Crops(module.photos, module.train_indices, module.recipe, 0, WARM_STEPS + TRIAL_STEPS)
    spent = []
    for number in range(len(batches)):
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = module.loss(batches[number].to(device), number)
        loss.backward()
        optimiser.step()
        float(loss.detach())  # waits for the device
        spent.append(time.perf_counter() - start)
    module.cpu().model.load_state_dict(before)
    return max(1, round(seconds / float(np.median(spent[WARM_STEPS:]))))


class _Crops(Dataset[Tensor]):
    """The batches of one stretch: a function of seed, stretch and number alone, so that a run that goes on repeats."""

    def __init__(
        self, photos: Photos, indices: NDArray[np.int64], recipe: RestorerRecipe, first: int, count: int
    ) -> None:
        self._photos, self._indices, self._recipe, self._first, self._count = photos, indices, recipe, first, count
        # Large images are drawn more often: a crop of each size of area is as likely.
        areas = np.array([photos.sizes[index] for index in indices], dtype=float).prod(axis=1)
        self._chances = areas / areas.sum()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensor:
        if number >= self._count:
            raise IndexError(number)
        random = np.random.default_rng((self._recipe.seed, self._first + number))
        chosen = random.choice(self._indices, self._recipe.batch, p=self._chances)
        return torch.from_numpy(self._photos.crops(chosen, self._recipe.crop, random))


class FitRestorer(Trainable):
    """Bring restored crops near clean ones; watch PSNR on the middles of held-out images."""

    watched = "select_psnr"
    unit = "held-out PSNR {:.2f} dB"

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        photos: Photos,
        split: Mapping[SplitName, Sequence[int]],
        damaged: Damaged,
        recipe: RestorerRecipe,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            likelihood: From its output to p(y|c).
            photos: Clean images.
            split: Which of them are trained on ("train") and looked at ("select").
            damaged: From clean crops (B, C, H, W) in [0, 1] to what the network is given.
            recipe: Steps, batch, crop.
        """
        super().__init__(network, recipe.steps, recipe.learning_rate)
        self.warm_up = min(0.1, 500 / (recipe.steps + 1))
        self.likelihood, self.recipe = likelihood, recipe
        self.photos, self._damaged = photos, damaged
        self.train_indices = np.array(split["train"], dtype=np.int64)
        self._select = list(split["select"])[:CHECK_IMAGES]

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of the current stretch."""
        first = self.current_epoch * self.stretch
        return DataLoader(
            _Crops(self.photos, self.train_indices, self.recipe, first, self.stretch_steps),
            batch_size=None,
            num_workers=0,
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The middle of each held-out image, one at a time: they differ in size."""
        return DataLoader(_Middles(self.photos, self._select, self._multiple), batch_size=None, num_workers=0)

    @property
    def _multiple(self) -> int:
        network = self.model
        assert isinstance(network, Restorer)  # noqa: S101 - for the type checker
        return network.multiple * network.upscale

    def training_step(self, crops: Tensor, index: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """One step on damaged crops."""
        return self.note_loss(self.loss(crops, self.global_step))

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides the damage."""
        y = self._unit(crops)
        return restoration_loss(self._predict(self._damaged(y, self._generator(key))), y)

    def validation_step(self, middle: Tensor, index: int) -> None:
        """PSNR under damage that is the same at every check."""
        y = self._unit(middle)
        predicted = self._predict(self._damaged(y, self._generator(10**9 + index)))
        self.log("select_psnr", psnr(predicted.mean, y).mean(), batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", predicted.log_prob(y).mean(), batch_size=1, on_epoch=True)

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:
        """The middle of one image (1, C, H, W), and p(y|c) of it under the damage that the key decides."""
        y, c = self.damaged_middle(image, key)
        return y, self._predict(c)

    def damaged_middle(self, image: int, key: int) -> tuple[Tensor, Tensor]:
        """The middle of one image (1, C, H, W), and the same under the damage that the key decides."""
        y = self._unit(_Middles(self.photos, [image], self._multiple)[0])
        return y, self._damaged(y, self._generator(key))

    def _unit(self, pixels: Tensor) -> Tensor:
        """Integer pixels (B, H, W, C) as y."""
        return self.photos.image_format.to_unit(pixels).contiguous(memory_format=torch.channels_last)

    def _predict(self, c: Tensor) -> Gaussian:
        predicted: Gaussian = self.likelihood(self.model(c.contiguous(memory_format=torch.channels_last)))
        return predicted

    def _generator(self, key: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.recipe.seed * 2_000_000_011 + key)


class _Middles(Dataset[Tensor]):
    def __init__(self, photos: Photos, indices: Sequence[int], multiple: int) -> None:
        self._photos, self._indices, self._multiple = photos, indices, multiple

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> Tensor:
        image, step = self._photos.image(self._indices[number]), self._multiple
        rows, columns = (
            _middle(length, max(step, min(length, CHECK_SIDE) // step * step)) for length in image.shape[:2]
        )
        return torch.from_numpy(np.array(padded(image[rows, columns], step))[None])  # a copy: the map is read-only


def _middle(length: int, side: int) -> slice:
    """So many of a row of pixels, or all where they are fewer."""
    start = max(0, length - side) // 2
    return slice(start, start + side)
