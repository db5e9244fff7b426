"""A discriminator in training: its own steps, its pull on what is made, and whether the two are balanced."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from pipelines.jobfile.tables import TrainTable
from vaecore.adversarial import Kind, adversarial_term, discriminator_loss, generator_loss, r1
from vaecore.networks import PatchDiscriminator

log = logging.getLogger(__name__)

LEARNING_RATE = 4e-4
BETAS = (0.5, 0.99)
GAMMA = 1e-3  # of the penalty on the discriminator's slope
LAZY = 8  # the penalty counts at every so many steps, so much: Karras et al. 2020, "StyleGAN2", appendix B
ALONE = 0.5  # share of the steps before the term sets in, where training does not begin with a trained model
RAMP = 0.1  # share of the steps over which the term comes into force: what a discriminator says at first is noise
WON, LOST = 0.98, 0.01  # accuracy from which on it has won; difference of its outputs below which it has lost
PATIENCE = 3  # checks in a row before somebody is told
WHEN_WON = "Train longer, begin with a trained model ('train.start'), or raise 'train.adversarial'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposition:
    """The adversarial term of a training.

    Attributes:
        weight: In force of the error.
        kind: Of loss.
        alone: Share of the steps before it sets in.
    """

    weight: float
    kind: Kind = "hinge"
    alone: float = 0.0

    @classmethod
    def of(cls, table: TrainTable) -> Opposition | None:
        """Return the term that a job asks for: it sets in at once where training begins with a trained model."""
        if table.adversarial is None:
            return None
        alone = ALONE if table.start is None else 0.0
        return cls(weight=table.adversarial, kind=table.adversarial_loss, alone=alone)

    def weight_at(self, step: int, steps: int) -> float | None:
        """Return the term's weight at a step; None before it sets in.

        >>> [Opposition(weight=2.0, alone=0.5).weight_at(step, 1000) for step in (499, 500, 550, 900)]
        [None, 0.0, 1.0, 2.0]
        """
        begun = (step - int(self.alone * steps)) / max(1, RAMP * steps)
        return None if begun < 0 else min(1.0, begun) * self.weight


def announce(opposition: Opposition | None, steps: int) -> None:
    """Tell whoever trains what an adversarial term does to the model, and from which step on; None: there is none."""
    if opposition is not None:
        alone = int(opposition.alone * steps)
        log.info(
            "sharp before faithful (train.adversarial = %g): %s, images must also look real, and fine detail may "
            "be made up; MLflow has the balance of the two networks at each check (adversary_...)",
            opposition.weight, f"from step {alone} of {steps} on" if opposition.alone else "from the first step on",
        )  # fmt: skip


class Adversary(nn.Module):
    """A discriminator with its optimiser. A submodule of what is trained: its weights are in the checkpoints.

    The optimiser is made at the first step, when it is known on which device.
    """

    def __init__(
        self,
        channels: int,
        opposition: Opposition,
        seed: int,
        *,
        name: str = "adversary",
        won: str = WHEN_WON,
        may_lose: bool = False,
    ) -> None:
        """Build the discriminator.

        Args:
            channels: Of what it is shown.
            opposition: Kind of loss, and its weight at each step.
            seed: Of its first weights.
            name: That its figures begin with.
            won: What to do when it has won, for people.
            may_lose: It is the aim that nobody can tell: nothing else is asked of what is made.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = PatchDiscriminator(channels).to(memory_format=torch.channels_last)
        self.opposition, self.name, self._won, self._may_lose = opposition, name, won, may_lose
        self._optimiser = LazyAdam(self.discriminator)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._bad = {"won": 0, "lost": 0}

    def learn(self, real: Tensor, made: Tensor, step: int, pace: float = 1.0) -> None:
        """One step of the discriminator, on images without a graph.

        Args:
            real: (B, C, H, W) with what they are given with, if anything.
            made: The same of made ones.
            step: Its number.
            pace: Share of the learning rate.
        """
        punish = step % LAZY == 0
        shown = real.detach().requires_grad_(punish)
        with torch.enable_grad():
            of_real, of_made = self.discriminator(shown), self.discriminator(made.detach())
            loss = discriminator_loss(of_real, of_made, self.opposition.kind)
            if punish:
                with torch.autocast(real.device.type, enabled=False):  # squares of small numbers
                    loss = loss + LAZY * r1(self.discriminator(shown.float()), shown, GAMMA)
            self._optimiser.step(loss, pace)
        right = ((of_real > 0).float().mean() + (of_made < 0).float().mean()) / 2
        self._note(real=of_real.mean(), made=of_made.mean(), accuracy=right)

    def oppose(
        self,
        step: int,
        weight: float,
        *,
        real: Tensor,
        judged: Tensor,
        error: Tensor,
        restored: Tensor,
        given: Tensor | None = None,
    ) -> Tensor:
        """Learn from a step's images, and return what is added to the error so that its images pass for real.

        Args:
            step: Its number.
            weight: In force of the error. See `adversarial_term`.
            real: Real images.
            judged: What is to pass for them.
            error: Depends on `restored`.
            restored: What the error is of.
            given: Further channels that the discriminator sees.
        """
        shown, made = (each if given is None else torch.cat([given, each], dim=1) for each in (real, judged))
        self.learn(shown, made, step)
        found = adversarial_term(error, restored, self.pull(made), judged, weight)
        self._note(share=found.share, factor=found.factor)
        return found.loss

    def pull(self, judged: Tensor) -> Tensor:
        """The loss of whoever made images and is taught by nothing else."""
        self.discriminator.requires_grad_(False)  # it learns nothing from this
        loss = generator_loss(self.discriminator(judged), self.opposition.kind)
        self.discriminator.requires_grad_(True)
        return loss

    def figures(self) -> dict[str, float]:
        """Means since the last call: outputs on real and on made images, accuracy, the term's share of the gradient.

        Says so in words when the balance has been lost for several checks.
        """
        found = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        if found:
            self._watch(found)
        return {f"{self.name}_{name}": value for name, value in found.items()}

    def optimiser_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self._optimiser.state()

    def resume(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._optimiser.resume(state)

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
            self._counts[name] = self._counts.get(name, 0) + 1

    def _watch(self, found: dict[str, float]) -> None:
        apart = found["real"] - found["made"]
        now = {"won": found["accuracy"] > WON, "lost": apart < LOST}
        self._bad = {name: count + 1 if now[name] else 0 for name, count in self._bad.items()}
        if self._bad["won"] == PATIENCE:
            log.warning(
                "the discriminator recognises %.1f %% of real and made images, for %d checks: it has won, and its "
                "demand may be out of reach. %s",
                100 * found["accuracy"], PATIENCE, self._won,
            )  # fmt: skip
        if self._bad["lost"] == PATIENCE and not self._may_lose:
            log.warning(
                "the discriminator's outputs on real and made images are %.3f apart, for %d checks: it has lost and "
                "has no effect. Lower 'train.adversarial', or add images",
                apart, PATIENCE,
            )  # fmt: skip


class AdversarialTraining(L.LightningModule):
    """What a training does for its adversary, if it has one: figures at each check, its optimiser in checkpoints."""

    adversary: Adversary | None  # set by each, for a module finds none that its class has

    def on_validation_epoch_end(self) -> None:
        """How the two are balanced."""
        for name, value in (self.adversary.figures() if self.adversary else {}).items():
            self.log(name, value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the discriminator's optimiser; its weights are kept with all others."""
        super().on_save_checkpoint(checkpoint)
        if self.adversary:
            checkpoint["adversary"] = self.adversary.optimiser_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        super().on_load_checkpoint(checkpoint)
        if self.adversary:
            self.adversary.resume(checkpoint["adversary"])


class LazyAdam:
    """Adam, made at the first step, when weights are on their device; it may go on from a checkpoint."""

    def __init__(self, module: nn.Module, learning_rate: float = LEARNING_RATE) -> None:
        """Keep what is to be trained."""
        self._module, self._learning_rate = module, learning_rate
        self._made: torch.optim.Adam | None = None
        self._resumed: dict[str, Any] | None = None

    def step(self, loss: Tensor, pace: float = 1.0) -> None:
        """One step down, at a share of the learning rate; no gradient from elsewhere counts."""
        if self._made is None:
            self._made = torch.optim.Adam(self._module.parameters(), lr=self._learning_rate, betas=BETAS)
            if self._resumed:
                self._made.load_state_dict(self._resumed)
        parameters = list(self._module.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self._made.param_groups:
            group["lr"] = pace * self._learning_rate
        self._made.step()
        self._made.zero_grad()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self._made.state_dict() if self._made is not None else self._resumed or {}

    def resume(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._made, self._resumed = None, state
