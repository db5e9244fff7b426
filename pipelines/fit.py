"""The training loop: Lightning around the bound. A run that was killed goes on where its last check ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipelines.data import TrainingData
from pipelines.job import TrainTable
from pipelines.progress import Advance, progress
from vaecore.bound import LatentVariableModel, bound_maps, elbo, training_loss
from vaecore.image_format import ImageFormat

log = logging.getLogger(__name__)

CHECKS = 20  # checks of the bound on held-out images, and checkpoints, in a full run
EMA_DECAY = 0.995

OnCheck = Callable[[int, dict[str, float]], None]


class Batches(Dataset[Tensor]):
    """The batches of one stretch between two checks: a function of seed and stretch alone, so resuming repeats it."""

    def __init__(
        self, data: TrainingData, image_format: ImageFormat, table: TrainTable, steps: int, stretch: int
    ) -> None:
        """Draw `steps` batches without replacement, reshuffling when the images run out."""
        generator = np.random.default_rng((table.seed, stretch))
        images = np.array(data.split["train"])
        size = min(table.batch, len(images))
        rounds = -(-steps * size // len(images))
        order = np.concatenate([generator.permutation(images) for _ in range(rounds)])
        self._indices = order[: steps * size].reshape(steps, size)
        self._data, self._format = data, image_format

    def __len__(self) -> int:
        """Steps in the stretch."""
        return len(self._indices)

    def __getitem__(self, step: int) -> Tensor:
        """y of one step."""
        return self._data.batch(self._indices[step], self._format).contiguous(memory_format=torch.channels_last)


class Fit(L.LightningModule):
    """Maximise the bound of the training images; watch it on the held-out ones."""

    def __init__(
        self, model: nn.Module, data: TrainingData, image_format: ImageFormat, table: TrainTable, steps: int
    ) -> None:
        """Tie a network to its data and its budget."""
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # 4 to 8 times faster on a CPU
        self.steps = steps
        self.stretch = max(1, -(-steps // CHECKS))
        self._data, self._format, self._table = data, image_format, table
        self._losses: list[Tensor] = []

    @property
    def network(self) -> LatentVariableModel:
        """The network as the bound sees it."""
        return self.model  # type: ignore[return-value]  # a Protocol that modules satisfy

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of the current stretch; an epoch of Lightning's is one stretch."""
        steps = min(self.stretch, self.steps - self.current_epoch * self.stretch)
        batches = Batches(self._data, self._format, self._table, max(1, steps), self.current_epoch)
        return DataLoader(batches, batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The select split, in order."""
        indices = np.array(self._data.split["select"])
        parts = np.array_split(indices, -(-len(indices) // 16))
        pieces = [self._data.batch(part, self._format).contiguous(memory_format=torch.channels_last) for part in parts]
        return DataLoader(pieces, batch_size=None, num_workers=0)  # type: ignore[arg-type]  # a list is a data set

    def training_step(self, y: Tensor, index: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """One step: distortion + beta * rate, with free bits, in nats per dimension."""
        noise = self._noise((len(y), 1), self.global_step)
        maps = bound_maps(self.network, y, noise)
        self.network.likelihood.observe(y, maps.likelihood)  # a scale in closed form serves the next step
        prior = self.network.prior(maps.posterior)
        loss = training_loss(maps, prior, beta=self._table.beta, free_bits=self._table.free_bits)
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, y: Tensor, index: int) -> None:
        """The plain bound of held-out images, always under the same noise."""
        bound = elbo(self.network, y, self._noise((len(y), 4), 1_000_000 + index))
        dims = y[0].numel()
        for name, value in (("elbo", bound.value), ("rate", bound.rate), ("distortion", bound.distortion)):
            self.log(f"select_{name}", value.mean() / dims, batch_size=len(y), on_epoch=True)

    def take_losses(self) -> float:
        """Mean training loss since the last call."""
        losses = torch.stack(self._losses or [torch.zeros(())]).mean()
        self._losses.clear()
        return float(losses)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under a one-cycle schedule over the whole budget."""
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=self._table.learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self._table.learning_rate, total_steps=self.steps + 1, pct_start=0.1
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _noise(self, batch: tuple[int, int], key: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._table.seed * 2_000_003 + key)
        return torch.randn((*batch, *self.network.latent_shape), generator=generator).to(self.device)


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
        value = trainer.callback_metrics.get("select_elbo")
        self._advance(1, "" if value is None else f"held-out ELBO {float(value):.4f} nats per dimension")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report a check."""
        assert isinstance(module, Fit)  # noqa: S101 - ours, always
        if not trainer.sanity_checking:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._on_check(trainer.global_step, {**figures, "train_loss": module.take_losses()})


def fit(
    model: nn.Module,
    data: TrainingData,
    image_format: ImageFormat,
    table: TrainTable,
    *,
    steps: int,
    folder: Path,
    device: str,
    on_check: OnCheck,
) -> int:
    """Train a network in place and leave the best weights of the run in it.

    Args:
        model: Satisfies `LatentVariableModel`.
        data: Images and splits.
        image_format: Of the images.
        table: Settings of the job.
        steps: Optimiser steps in a full run.
        folder: Checkpoints; a run that finds one there goes on from it.
        device: "cpu" or "cuda".
        on_check: Called with the step and the figures of each check.

    Returns:
        Steps done.
    """
    module = Fit(model, data, image_format, table, steps)
    best = ModelCheckpoint(
        folder, filename="best", monitor="select_elbo", mode="max", save_last=True, save_on_train_epoch_end=True
    )
    last = folder / "last.ckpt"
    done = torch.load(last, weights_only=True, map_location="cpu")["global_step"] if last.is_file() else 0
    if done:
        log.info("going on from step %d of %d (%s)", done, steps, folder)
    with _quiet_lightning(), progress(log, "train", steps, "steps", done) as advance:
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if device == "cuda" else "32-true",
            max_steps=steps,
            callbacks=[
                WeightAveraging(avg_fn=ema),
                best,
                EarlyStopping(
                    monitor="select_elbo", mode="max", patience=table.patience, check_on_train_epoch_end=False
                ),
                Watch(advance, on_check),
            ],
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
        )
        trainer.fit(module, ckpt_path=str(last) if done else None, weights_only=True)
    state = torch.load(best.best_model_path or folder / "best.ckpt", weights_only=True, map_location="cpu")[
        "state_dict"
    ]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    model.to(memory_format=torch.contiguous_format).eval()
    return int(trainer.global_step)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence the notes about workers, devices and logging intervals; they are decided above."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
