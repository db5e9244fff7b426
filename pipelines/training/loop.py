"""The training loop: Lightning around a network. A run that was killed goes on where its last check ended."""

from __future__ import annotations

import io
import logging
import math
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from pipelines.base.progress import Advance, progress
from vaecore.graphs.quiet import quiet

log = logging.getLogger(__name__)

CHECKS = 20  # checks on held-out images, and checkpoints, in a full run
EMA_DECAY = 0.995
NORMS = 1_000  # steps whose gradients' norms are remembered
NORM_QUANTILE = 0.1  # of them, which later ones may not exceed: the paper's choice

LOUD = ("lightning.pytorch", "lightning.fabric", "lightning")  # on workers, devices, intervals: decided below

BEST, LAST = "best.ckpt", "last.ckpt"

OnCheck = Callable[[int, dict[str, float]], None]


class Trainable(L.LightningModule):
    """A network and how it is trained; an epoch of Lightning's is a stretch between two checks.

    Attributes:
        model: What is trained.
        steps: Optimiser steps in all.
        patience: Checks without a better bound that end training; None: go to the end and keep the last weights.
        learning_rate: Peak of the schedule.
        warm_up: Share of the steps on the way to it.
        watched: What is logged at each check, higher being better, and decides which weights are best.
        unit: Of what is watched, for people.
    """

    model: nn.Module
    steps: int
    patience: int | None
    learning_rate: float
    warm_up: float = 0.1
    watched: str = "select_elbo"
    unit: str = "held-out ELBO {:.4f} nats per dimension"

    def __init__(self, model: nn.Module, steps: int, learning_rate: float, patience: int | None = None) -> None:
        """Put the network into the layout that is 4 to 8 times faster on a CPU."""
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.steps, self.learning_rate, self.patience = steps, learning_rate, patience
        self.stretch = max(1, -(-steps // CHECKS))
        self._losses: list[Tensor] = []
        self._norms: deque[float] = deque(maxlen=NORMS)

    @property
    def stretch_steps(self) -> int:
        """Steps of the current stretch; the last one may be shorter."""
        return max(1, min(self.stretch, self.steps - self.current_epoch * self.stretch))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under a one-cycle schedule over the whole budget: up to the peak, then a cosine to nothing."""
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.learning_rate, total_steps=self.steps + 1, pct_start=self.warm_up
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,  # noqa: ARG002 - Lightning's signature
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Limit the gradient's norm to a low quantile of those before: no rate has to be set by hand.

        AdamW makes nothing of the gradients' scale, so that this keeps a step of rare, large gradients from undoing
        many others, and slows nothing down.

        Source: Seetharaman et al. 2020, "AutoClip: adaptive gradient clipping for source separation networks", eq. 2.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        norm = float(torch.nn.utils.get_total_norm([weight.grad for weight in weights]))
        if not math.isfinite(norm):  # the step is left out
            optimizer.zero_grad(set_to_none=True)
            return
        self._norms.append(norm)
        limit = float(np.quantile(self._norms, NORM_QUANTILE))
        torch.nn.utils.clip_grads_with_norm_(weights, limit, torch.tensor(norm))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the norms: a run that goes on has to repeat."""
        checkpoint["gradient_norms"] = list(self._norms)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the norms that were kept."""
        self._norms = deque(checkpoint.get("gradient_norms", ()), maxlen=NORMS)

    def note_loss(self, loss: Tensor) -> Tensor:
        """Remember a step's loss for `take_losses`."""
        self._losses.append(loss.detach())
        return loss

    def take_losses(self) -> float:
        """Mean training loss since the last call."""
        losses = torch.stack(self._losses or [torch.zeros(())]).mean()
        self._losses.clear()
        return float(losses)


def ema(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
    """Exponential moving average of the weights; its memory grows with the run, so that it forgets the random start."""
    decay = min(EMA_DECAY, (1 + float(updates)) / (10 + float(updates)))
    return torch.lerp(current, average, decay) if average.is_floating_point() else current


class Watch(Callback):
    """Tell the progress bar and the tracker what happens."""

    def __init__(self, advance: Advance, on_check: OnCheck) -> None:
        """Keep the two listeners."""
        self._advance, self._on_check = advance, on_check

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Count a step."""
        module = trainer.lightning_module
        assert isinstance(module, Trainable)  # noqa: S101 - ours, always
        value = trainer.callback_metrics.get(module.watched)
        self._advance(1, "" if value is None else module.unit.format(float(value)))

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report a check."""
        assert isinstance(module, Trainable)  # noqa: S101 - ours, always
        if not trainer.sanity_checking:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._on_check(trainer.global_step, {**figures, "train_loss": module.take_losses()})


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Chance that is a function of a seed: dropout knows no generator, and a run that goes on has to repeat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def run(module: Trainable, *, folder: Path, device: str, on_check: OnCheck) -> int:
    """Train; leave in `module.model` the weights of the best check, or the last ones where nothing stops early.

    Args:
        module: Network, data and budget.
        folder: Checkpoints; a run that finds one there goes on from it.
        device: "cpu" or "cuda".
        on_check: Called with the step and the figures of each check.

    Returns:
        Steps done.
    """
    steps = module.steps
    done, ended = _progress_of(folder, module)
    if done:
        log.info("%s step %d of %d (%s)", "had ended at" if ended else "going on from", done, steps, folder)
    if not ended:
        with quiet(*LOUD), progress(log, "train", steps, "steps", done) as advance:
            trainer = L.Trainer(
                accelerator="gpu" if device == "cuda" else "cpu",
                devices=1,
                precision="bf16-mixed" if device == "cuda" else "32-true",
                max_steps=steps,
                callbacks=[
                    WeightAveraging(avg_fn=ema),
                    *_early_stopping(module),
                    Watch(advance, on_check),
                    *_checkpoints(folder, module),
                ],
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                enable_progress_bar=False,
                enable_model_summary=False,
                logger=False,
            )
            with _keyboard_interrupt(), _no_denormals():
                trainer.fit(module, ckpt_path=str(folder / LAST) if done else None, weights_only=True)
        done = int(trainer.global_step)
    module.load_state_dict(_load(folder / (LAST if module.patience is None else BEST))["state_dict"])
    module.model.to(memory_format=torch.contiguous_format).eval()
    return done


def _early_stopping(module: Trainable) -> list[Callback]:
    if module.patience is None:
        return []
    return [_stopping(module, check_on_train_epoch_end=False)]


def _stopping(module: Trainable, **options: Any) -> EarlyStopping:  # noqa: ANN401
    return EarlyStopping(monitor=module.watched, mode="max", patience=module.patience or 1, **options)


def _checkpoints(folder: Path, module: Trainable) -> list[Callback]:
    """The best check's weights, and the state of the last check.

    The order counts: a run killed between the two files goes on from the check before and writes the same best again.
    """
    best = ModelCheckpoint(
        folder,
        filename=Path(BEST).stem,
        monitor=module.watched,
        mode="max",
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    last = ModelCheckpoint(folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True)
    return [best, last]


def _progress_of(folder: Path, module: Trainable) -> tuple[int, bool]:
    """Steps behind the folder's last check, and whether the run had ended there; (0, False) where nothing is usable.

    Lightning forgets that a run stopped early, and would train on.
    """
    if not (folder / LAST).is_file():
        return 0, False
    for file in (folder / BEST, folder / LAST):
        try:
            state = _load(file)
        except (FileNotFoundError, KeyError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            log.warning("%s cannot be read (%s): removing this run's checkpoints and starting afresh", file, reason)
            for checkpoint in folder.glob("*.ckpt"):
                checkpoint.unlink()
            return 0, False
    stopping = state["callbacks"].get(_stopping(module).state_key)
    stopped = stopping is not None and stopping["stopping_reason"] != EarlyStoppingReason.NOT_STOPPED.value
    return int(state["global_step"]), stopped or state["global_step"] >= module.steps


def _load(file: Path) -> dict[str, Any]:
    content = io.BytesIO(file.read_bytes())  # read first: only the disk can raise OSError, which is not damage
    state: dict[str, Any] = torch.load(content, weights_only=True, map_location="cpu")
    return state


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Let a CPU take numbers below 1e-38 for zero: one of a saturated network's steps took as long as seven others."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt again: Lightning makes it sys.exit(1) and leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise error.__context__ from None
        raise
