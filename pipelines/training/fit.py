"""What a VAE is trained with: batches of y, the bound, its held-out value. `loop` trains with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipelines.data.examples import Examples
from pipelines.jobfile.tables import TrainTable
from pipelines.training.adversary import ALONE, AdversarialTraining, Adversary, Opposition
from pipelines.training.loop import OnCheck, Trainable, repeatable, run
from vaecore.adversarial import Kind
from vaecore.bound import LatentVariableModel, bound_maps, elbo, training_loss
from vaecore.bound.objectives import iwae_loss, total_correlation
from vaecore.damage.corruptions import CORRUPTIONS
from vaecore.networks.class_prior import BESIDE, ClassPrior, label_loss
from vaecore.tasks import Target

VALIDATION_BATCH = 16
WHEN_WON = "Train longer, or raise 'train.adversarial'"
SAMPLES = {"iwae": 8}  # of the latent in each step; one does for the others


class Batch(NamedTuple):
    """What one step is given."""

    y: Tensor  # (B, C, H, W)
    label: Tensor  # (B,), class of each image; 0 where they have none


class Batches(Dataset[Batch]):
    """Batches of images, made when they are asked for: memory holds one, however many there are."""

    def __init__(
        self,
        examples: Examples,
        indices: Sequence[NDArray[np.int64]],
        seed: int,
    ) -> None:
        """Keep which images each batch is made of, and what decides chance."""
        self._examples, self._indices, self._seed = examples, indices, seed

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Batch:
        """One batch."""
        chance = torch.Generator().manual_seed((self._seed * 1_000_003 + index) % 2**63)
        y = self._examples.batch(self._indices[index], chance)
        return Batch(y.contiguous(memory_format=torch.channels_last), self._examples.labels_of(self._indices[index]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of one training, the job's where it has any, else the target's."""

    steps: int
    batch: int
    learning_rate: float
    objective: str = "elbo"
    samples: int = 1
    beta: float = 1.0
    free_bits: float = 0.0
    patience: int | None = None
    label_weight: float = BESIDE  # of telling classes apart, where there are any
    corruption: str = "none"  # of what the encoder sees
    adversarial: float | None = None  # weight of the term that asks images to pass for real
    adversarial_loss: Kind = "hinge"
    seed: int = 0

    @classmethod
    def of(cls, table: TrainTable, target: Target, images: int) -> Recipe:
        """Fill in what the job leaves open, for a number of training images."""
        few = images < target.few_images and table.objective != "iwae"  # that bound is of what the encoder has seen
        usual = "noise" if few else "none"  # few images are not learned by heart so soon
        return cls(
            steps=table.steps or target.steps_for(images),
            batch=table.batch or target.batch,
            learning_rate=table.learning_rate or target.learning_rate,
            objective=table.objective,
            samples=table.samples or SAMPLES.get(table.objective, 1),
            beta=table.beta,
            free_bits=table.free_bits,
            label_weight=BESIDE if table.label_weight is None else table.label_weight,
            # The bound is at its best before an adversarial term sets in.
            patience=None if table.adversarial else table.patience or target.patience,
            corruption=table.corruption or usual,
            adversarial=table.adversarial,
            adversarial_loss=table.adversarial_loss,
            seed=table.seed,
        )


def shuffled(images: NDArray[np.int64], recipe: Recipe, steps: int, stretch: int) -> NDArray[np.int64]:
    """Indices of one stretch between two checks, a row a step: drawn without replacement, reshuffled when they run out.

    A function of seed and stretch alone, so that a run that goes on repeats what it would have seen.
    """
    generator = np.random.default_rng((recipe.seed, stretch))
    size = min(recipe.batch, len(images))
    rounds = -(-steps * size // len(images))
    order = np.concatenate([generator.permutation(images) for _ in range(rounds)])
    return order[: steps * size].reshape(steps, size)


class Fit(AdversarialTraining, Trainable):
    """Maximise the bound of the training images; watch it on the held-out ones.

    With an adversarial term, reconstructions and images drawn from the prior are to pass for real: a VAE-GAN, here with
    the bound whole, where the paper takes its distortion in the discriminator's features.

    Source: Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", section 3.
    """

    def __init__(self, model: nn.Module, examples: Examples, recipe: Recipe) -> None:
        """Tie a network to its data and its budget."""
        super().__init__(model, recipe.steps, recipe.learning_rate, recipe.patience)
        self.recipe = recipe
        self._examples = examples
        self.adversary = None
        if recipe.adversarial is not None:
            channels = examples.batch(np.array(examples.split["train"][:1])).shape[1]
            opposition = Opposition(weight=recipe.adversarial, kind=recipe.adversarial_loss, alone=ALONE)
            self.adversary = Adversary(channels, opposition, recipe.seed, won=WHEN_WON)

    @property
    def network(self) -> LatentVariableModel:
        """The network as the bound sees it."""
        return self.model  # type: ignore[return-value]  # a Protocol that modules satisfy

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the current stretch; an epoch of Lightning's is one stretch."""
        images = np.array(self._examples.split["train"])
        order = shuffled(images, self.recipe, self.stretch_steps, self.current_epoch)
        seed = self.recipe.seed * 10_007 + self.current_epoch
        return DataLoader(Batches(self._examples, list(order), seed), batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The select split, in order."""
        indices = np.array(self._examples.split["select"])
        pieces = np.array_split(indices, -(-len(indices) // VALIDATION_BATCH))
        return DataLoader(Batches(self._examples, pieces, seed=0), batch_size=None, num_workers=0)

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """One step: distortion + beta * rate, with free bits, in nats per dimension; given the images' classes."""
        y, labelled = batch.y, self.model if isinstance(self.model, ClassPrior) else None
        network = self.network if labelled is None else labelled.given(batch.label)
        channels, height, width = network.latent_shape
        grid = (
            height * y.shape[2] // self._examples.size[0],
            width * y.shape[3] // self._examples.size[1],
        )  # a window's
        noise = self._noise((len(y), self.recipe.samples, channels, *grid), self.global_step)
        if self.recipe.objective == "iwae":
            with repeatable(self.recipe.seed * 2_000_003 + self.global_step):
                return self.note_loss(iwae_loss(network, y, noise))
        given = None
        if self.recipe.corruption != "none":
            damaged = CORRUPTIONS[self.recipe.corruption](y, self._generator(500_000 + self.global_step))
            given = damaged.contiguous(memory_format=torch.channels_last)
        with repeatable(self.recipe.seed * 2_000_003 + self.global_step):
            maps = bound_maps(network, y, noise, given=given)
        network.likelihood.observe(y, maps.likelihood)  # a scale in closed form serves the next step
        if self.recipe.objective == "total_correlation":
            dependence = total_correlation(maps.posterior, maps.posterior.sample(noise)[:, 0]) / y[0].numel()
            loss = training_loss(maps) + (self.recipe.beta - 1) * dependence
        else:
            loss = training_loss(maps, beta=self.recipe.beta, free_bits=self.recipe.free_bits)
        if labelled is not None:
            loss = loss + self.recipe.label_weight * label_loss(labelled, maps.posterior, batch.label)
        return self.note_loss(loss + self._pass_for_real(loss, y, maps.likelihood.mean))

    def _pass_for_real(self, loss: Tensor, y: Tensor, reconstructed: Tensor) -> Tensor | float:
        """The adversarial term of reconstructions, and of as many images from the standard prior."""
        step, adversary = self.global_step, self.adversary
        if adversary is None or (weight := adversary.opposition.weight_at(step, self.recipe.steps)) is None:
            return 0.0
        latents = self._noise((len(reconstructed), *self.network.latent_shape), 2_000_000 + step)
        judged = torch.cat([reconstructed, self.network.decode(latents).mean])
        return adversary.oppose(step, weight, real=y, judged=judged, error=loss, restored=reconstructed)

    def validation_step(self, batch: Batch, index: int) -> None:
        """The plain bound of held-out images, always under the same noise; nobody tells their classes."""
        y = batch.y
        noise = self._noise((len(y), 4, *self.network.latent_shape), 1_000_000 + index)
        bound = elbo(self.network, y, noise)
        dims = y[0].numel()
        for name, value in (("elbo", bound.value), ("rate", bound.rate), ("distortion", bound.distortion)):
            self.log(f"select_{name}", value.mean() / dims, batch_size=len(y), on_epoch=True)

    def _noise(self, shape: tuple[int, ...], key: int) -> Tensor:
        return torch.randn(shape, generator=self._generator(key)).to(self.device)

    def _generator(self, key: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.recipe.seed * 2_000_003 + key)


def fit(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    *,
    folder: Path,
    device: str,
    on_check: OnCheck,
) -> int:
    """Train a network in place; leave in it the weights of the best check, or the last ones where nothing stops early.

    Args:
        model: Satisfies `LatentVariableModel`.
        examples: y of the images, and splits.
        recipe: Steps, batch, learning rate and the rest.
        folder: Checkpoints; a run that finds one there goes on from it.
        device: "cpu" or "cuda".
        on_check: Called with the step and the figures of each check.

    Returns:
        Steps done.
    """
    module = Fit(model, examples, recipe)
    return run(module, folder=folder, device=device, on_check=on_check)
