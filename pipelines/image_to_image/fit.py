"""What every image-to-image network is trained with: crops of images of any size, and the middles of held-out ones."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.images.tiles import padded
from pipelines.training.loop import Trainable

NetworkT = TypeVar("NetworkT", bound=nn.Module)

WARM_STEPS, TRIAL_STEPS = 2, 16
TRIAL_SPAN = TRIAL_STEPS * 1001  # steps of the run that trial steps are spread over; 1001 is odd: some steps do more
CHECK_IMAGES = 32
CHECK_SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRecipe:
    """Settings of one training."""

    steps: int
    batch: int = 16
    crop: int = 64  # side of y in training
    learning_rate: float = 1e-3
    seed: int = 0


class FitCrops(Trainable, Generic[NetworkT]):
    """A network, images, and which of them are trained on; what a step minimises is for others to say.

    Attributes:
        upright: Crops are mirrored, but not turned.
        check_side: Pixels of each held-out image, from its middle; None: all.
    """

    upright: bool = False
    check_side: int | None = CHECK_SIDE

    def __init__(
        self,
        network: NetworkT,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        recipe: CropRecipe,
        step: int,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            images: The images.
            split: Which of them are trained on ("train") and looked at ("select"), and what else they are for.
            recipe: Steps, batch, crop.
            step: Sides of what the network is given whole are multiples of this.
        """
        super().__init__(network, recipe.steps, recipe.learning_rate)
        self.warm_up = min(0.1, 500 / (recipe.steps + 1))
        self.images, self.split, self.recipe, self.multiple = images, split, recipe, step

    @property
    def network(self) -> NetworkT:
        """What is trained."""
        return cast(NetworkT, self.model)

    @abstractmethod
    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides what is left to chance."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of the current stretch."""
        first = self.current_epoch * self.stretch
        return DataLoader(
            self.make_batches(first, self.stretch_steps),
            batch_size=None,
            num_workers=0,
        )

    def make_batches(self, first: int, count: int) -> Dataset[Tensor]:
        """Return the batches of some steps."""
        indices = np.array(self.split["train"], dtype=np.int64)
        return _Crops(self.images, indices, self.recipe, first, count, upright=self.upright)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The middle of each held-out image, one at a time: they differ in size."""
        return DataLoader(self._middles(self.split["select"][:CHECK_IMAGES]), batch_size=None, num_workers=0)

    def training_step(self, crops: Tensor, index: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """One step on crops."""
        return self.note_loss(self.loss(crops, self.global_step))

    def read_middle(self, image: int) -> Tensor:
        """Read the middle of one image, (1, H, W, C), as it is on disk."""
        return self._middles([image])[0]

    def _middles(self, indices: Sequence[int]) -> Dataset[Tensor]:
        return _Middles(self.images, indices, self.multiple, self.check_side)

    def to_unit(self, pixels: Tensor) -> Tensor:
        """Integer pixels (B, H, W, C) as (B, C, H, W) in [0, 1], fast to convolve."""
        return self.images.image_format.to_unit(pixels).contiguous(memory_format=torch.channels_last)

    def make_generator(self, key: int) -> torch.Generator:
        """Return chance, on the device, that is the same for an equal key."""
        return torch.Generator(self.device).manual_seed(self.recipe.seed * 2_000_000_011 + key)


def estimate_steps(seconds: float, module: FitCrops[Any], device: str) -> int:
    """Estimate how many steps take so long here, by a few of all phases of a run of `TRIAL_SPAN`; keep the weights."""
    before = copy.deepcopy(module.model.state_dict())
    module.to(device)
    optimiser = torch.optim.AdamW(module.model.parameters(), lr=1e-6)
    batches = module.make_batches(0, WARM_STEPS + TRIAL_STEPS)
    spent = []
    for number in range(WARM_STEPS + TRIAL_STEPS):
        key = max(0, number - WARM_STEPS) * (TRIAL_SPAN // TRIAL_STEPS)
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = module.loss(batches[number].to(device), key)
        loss.backward()
        optimiser.step()
        float(loss.detach())  # waits for the device
        spent.append(time.perf_counter() - start)
    module.cpu().model.load_state_dict(before)
    return max(1, round(seconds / float(np.mean(spent[WARM_STEPS:]))))


class _Crops(Dataset[Tensor]):
    """The batches of one stretch: a function of seed, stretch and number alone, so that a run that goes on repeats."""

    def __init__(
        self,
        images: CropImages,
        indices: NDArray[np.int64],
        recipe: CropRecipe,
        first: int,
        count: int,
        *,
        upright: bool,
    ) -> None:
        self._images, self._indices, self._recipe, self._first, self._count = images, indices, recipe, first, count
        self._upright = upright
        # Large images are drawn more often: a crop of each size of area is as likely.
        areas = np.array([images.sizes[index] for index in indices], dtype=float).prod(axis=1)
        self._chances = areas / areas.sum()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensor:
        if number >= self._count:
            raise IndexError(number)
        random = np.random.default_rng((self._recipe.seed, self._first + number))
        chosen = random.choice(self._indices, self._recipe.batch, p=self._chances)
        return torch.from_numpy(self._images.draw_crops(chosen, self._recipe.crop, random, upright=self._upright))


class _Middles(Dataset[Tensor]):
    def __init__(self, images: CropImages, indices: Sequence[int], multiple: int, side: int | None) -> None:
        self._images, self._indices, self._multiple, self._side = images, indices, multiple, side

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> Tensor:
        image, step = self._images.image(self._indices[number]), self._multiple
        rows, columns = (
            _middle(length, max(step, min(length, self._side or length) // step * step)) for length in image.shape[:2]
        )
        return torch.from_numpy(np.array(padded(image[rows, columns], step))[None])  # a copy: the map is read-only


def _middle(length: int, side: int) -> slice:
    """So many of a row of pixels, or all where they are fewer."""
    start = max(0, length - side) // 2
    return slice(start, start + side)
