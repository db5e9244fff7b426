"""Restorers without pairs: the damage is learned from damaged images, mending from clean ones that were damaged so."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.image_to_image.fit import CropRecipe
from pipelines.image_to_image.kind import OPTIONS, find_common_problems
from pipelines.image_to_image.plan import Split, read_unpaired
from pipelines.image_to_image.restorer import FitRestorer, RestoringTraining
from pipelines.jobfile.job import Job
from pipelines.models.model_file import LEARNED
from pipelines.training.adversary import LEARNING_RATE, Adversary, LazyAdam, Opposition
from vaecore.damage.degradations import as_files, grain
from vaecore.graphs.restoration import restoration_loss
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Degrader, Restorer
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import Unpaired, unpaired_tasks

log = logging.getLogger(__name__)
OWN_OPTIONS = (OPTIONS - {"data.group"}) | {
    "data.degraded",
    "data.clean",
    "train.adversarial",
    "train.adversarial_loss",
}
GRAIN_CROPS = 256  # of each folder, that the noise to begin with is estimated on
LEAST_NOISE = 2 / 255
SLOWER = 2.5  # than the discriminator does the damage learn: Heusel et al. 2017, "GANs trained by a two time-scale ..."
RARELY = 2  # at every so many steps is the damage learned: it has few weights
LEARNING_SHARE = (
    0.6  # share of the steps in which it is, more slowly to the end: the restorer learns to undo what stays
)
CHANGE = 10.0  # what a mean change costs, a share of the range: it has to be worth more than chance is
WHEN_WON = "Are the damaged images of the same sort as the clean ones? If so, train longer"
WATCHED = 16  # held-out crops of damaged images whose grain is compared


class LearnedDamage(nn.Module):
    """A degrader in training against a discriminator of damaged patches. A submodule: its weights are in checkpoints.

    Nothing but the discriminator teaches it: were it to make mending easy as well, it would fade. But it is to leave
    images as they are as far as it can: of two folders, one is a little sharper by chance.

    Source: the self-regularisation of Shrivastava et al. 2017, "Learning from simulated and unsupervised images through
    adversarial training", eq. 4.
    """

    def __init__(self, channels: int, scale: float, opposition: Opposition, seed: int, largest: int) -> None:
        """Build both; see `Degrader`. `largest` is the value of files that is white."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.degrader = Degrader(channels, scale)
        self.adversary = Adversary(channels, opposition, seed + 1, name="damage", won=WHEN_WON, may_lose=True)
        self._optimiser, self._largest = LazyAdam(self.degrader, LEARNING_RATE / SLOWER), largest

    def forward(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Clean images damaged as files hold them; the gradient goes past the rounding."""
        noise = torch.randn(y.shape, generator=generator, device=generator.device).to(y)
        c = self.degrader(y, noise).clamp(0, 1)
        rounded: Tensor = c + (as_files(c, self._largest) - c).detach()
        return rounded

    def learn(self, y: Tensor, damaged: Tensor, generator: torch.Generator, step: int, pace: float = 1.0) -> None:
        """A step of the discriminator and one of the damage, as long as `pace` says; y and damaged are strangers."""
        made = self(y, generator)
        self.adversary.learn(damaged, made, step, pace)
        cost = CHANGE * self.degrader.changed(y).abs().mean()
        self._optimiser.step(self.adversary.pull(made) + cost, pace)

    def optimiser_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"degrader": self._optimiser.state(), "adversary": self.adversary.optimiser_state()}

    def resume(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._optimiser.resume(state["degrader"])
        self.adversary.resume(state["adversary"])


class FitUnpaired(FitRestorer):
    """As `FitRestorer`, with a damage that is learned meanwhile. Of a cycle's two ways the one that noise has is kept.

    Clean to damaged and back is trained as pairs are: y is known. From damaged to clean and back there is nothing to
    compare, for the noise is another one each time; that restored images look clean may be asked for by an adversarial
    term of their own (`train.adversarial`).

    Source: Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent adversarial networks";
    learning a denoiser from generated noise: Chen et al. 2018, "Image blind denoising with
    generative adversarial network based noise modeling".
    """

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        scale: float,
        recipe: CropRecipe,
        *,
        damage: Opposition,
        opposition: Opposition | None = None,
    ) -> None:
        """Tie a network to clean and damaged images and its budget.

        Args:
            network: To be trained.
            likelihood: From its output to p(y|c).
            images: Clean and damaged images.
            split: "train" and "select" are of clean ones, "degraded" and "degraded_select" of damaged ones.
            scale: Of the noise that the damage begins with.
            recipe: Steps, batch, crop.
            damage: Kind of the loss that the damage is learned with.
            opposition: The term that asks restored damaged images to look clean, if any.
        """
        super().__init__(network, likelihood, images, split, self._damage_clean, recipe)
        self.damage = LearnedDamage(network.outputs, scale, damage, recipe.seed, images.image_format.maximum)
        if opposition is not None:
            self.adversary = Adversary(network.outputs, opposition, recipe.seed + 2)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """The restorer's; damage and discriminators take steps of their own."""
        y, damaged = self.to_unit(crops), self.to_unit(self._draw_damaged(key).to(crops.device))
        chance = self.make_generator(key)
        # Two that chase each other do not settle by themselves.
        pace = 1 - key / max(1.0, LEARNING_SHARE * self.recipe.steps)
        if pace > 0 and key % RARELY == 0:
            self.damage.learn(y, damaged, chance, key // RARELY, pace)
        c = self._damage_clean(y, chance)
        predicted = self._predict(c)
        error = restoration_loss(predicted, y)
        if self.adversary is None or (weight := self.adversary.opposition.weight_at(key, self.recipe.steps)) is None:
            return error
        judged = self._predict(damaged).mean
        return error + self.adversary.oppose(key, weight, real=y, judged=judged, error=error, restored=predicted.mean)

    def validation_step(self, middle: Tensor, index: int) -> None:
        """As with pairs; and whether held-out damaged images have the grain of what the damage makes."""
        super().validation_step(middle, index)
        if index < WATCHED and index < len(held := self.split["degraded_select"]):
            self.log("damage_grain", self._compare_grain(middle, held[index], index), batch_size=1, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """How the damage and its discriminator are balanced, too."""
        super().on_validation_epoch_end()
        for name, value in self.damage.adversary.figures().items():
            self.log(name, value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the optimisers of all but the restorer; weights are kept with all others."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["damage"] = self.damage.optimiser_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        super().on_load_checkpoint(checkpoint)
        self.damage.resume(checkpoint["damage"])

    @torch.no_grad()
    def _damage_clean(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Damage clean images for the restorer, which does not teach the damage."""
        made: Tensor = self.damage(y, generator)
        return made.clone()

    def _damage(self, y: Tensor, grey: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage images, never as grey: the damage is that of the images as they are."""
        del grey
        return y, self._damage_clean(y, generator)

    def _draw_damaged(self, key: int) -> Tensor:
        """Draw a batch of crops of damaged images."""
        random = np.random.default_rng((self.recipe.seed, 77, key))
        chosen = random.choice(np.array(self.split["degraded"]), self.recipe.batch)
        return torch.from_numpy(self.images.draw_crops(chosen, self.recipe.crop, random))

    def _compare_grain(self, middle: Tensor, image: int, index: int) -> Tensor:
        """Divide the grain of what is made of a clean image by that of a damaged one: 1 where they agree."""
        y = self.to_unit(middle)
        damaged = self.to_unit(self.read_middle(image)).to(y.device)
        made = self._damage_clean(y, self.make_generator(10**9 + index))
        return grain(made).mean() / grain(damaged).mean().clamp(min=1e-6)


class UnpairedTraining(RestoringTraining):
    """Clean images, and damaged ones that have nothing to do with them, make a model that mends."""

    task: Unpaired
    comparison = "PSNR {:.2f} dB against the champion's {:.2f}, under the damage that the challenger has learned,"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open. See `CropTraining`."""
        self.task = unpaired_tasks()[job.task]
        super().__init__(job)

    def find_problems(self) -> Iterator[str]:
        """Yield options of other tasks."""
        yield from find_common_problems(self.job, OWN_OPTIONS)

    def read(self, image_format: ImageFormat) -> tuple[CropImages, Split]:
        """Read clean and damaged images."""
        return read_unpaired(self.job, image_format, self.calibrated)

    def build_fit(self, images: CropImages, split: Split) -> Callable[[CropRecipe], FitUnpaired]:
        """Build a restorer, and a damage that begins with noise as strong as that of the damaged images."""
        scale = estimate_noise(images, split)
        log.info("the damaged images are grainier, as by noise of %.1f 8-bit levels; the rest is learned", 255 * scale)
        return partial(
            FitUnpaired, self.build_network(images), GaussianLikelihood(), images, split, scale,
            damage=Opposition(weight=1.0, kind=self.job.train.adversarial_loss),
            opposition=Opposition.of(self.job.train),
        )  # fmt: skip

    def list_choices(self, images: CropImages) -> Sequence[Any]:
        """List the network, and which images are damaged."""
        return [self.size, [str(file.path.parent) for file in images.files]]

    def describe_damage(self) -> dict[str, Any]:
        """Return that it was learned."""
        return {"damage": LEARNED, "strengths": (1.0, 1.0), "levels": (1.0,), "luma": False}


@torch.no_grad()
def estimate_noise(images: CropImages, split: Split) -> float:
    """Return the standard deviation of white noise that would make clean images as grainy as the damaged ones."""
    found = []
    for name in ("train", "degraded"):
        random = np.random.default_rng(0)
        chosen = random.choice(np.array(split[name]), GRAIN_CROPS)
        crops = images.image_format.to_unit(torch.from_numpy(images.draw_crops(chosen, 64, random)))
        found.append(float(grain(crops).square().mean()))
    if found[0] > found[1] + LEAST_NOISE**2:
        log.warning(
            "the clean images are grainier than the damaged ones (%.1f against %.1f 8-bit levels): unless the damage "
            "is softness, 'data.degraded' and 'data.clean' are swapped", *(255 * math.sqrt(each) for each in found),
        )  # fmt: skip
    return math.sqrt(max(found[1] - found[0], LEAST_NOISE**2))
