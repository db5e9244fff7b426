"""The tables of a job file. Each is a record that refuses unknown keys."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipelines.base.paths import expect_local
from pipelines.jobfile import recurrence
from pipelines.jobfile.piece_names import FOLDERS, pattern_of

LocalPath = Annotated[Path, BeforeValidator(expect_local)]


def _length_of_time(text: str) -> str:
    """Return the text if it is a length of time.

    Raises:
        ValueError: The text is not a length of time.
    """
    if recurrence.interval(text) is None:
        msg = 'not a length of time; write one such as "30d" (s, m, h, d, w)'
        raise ValueError(msg)
    return text


def kinds_in(package: str) -> list[str]:
    """Return the kinds in a package by its file names: importing the package would import torch."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return sorted(module.name for module in pkgutil.iter_modules(places) if module.name != "base")


Age = Annotated[str, AfterValidator(_length_of_time)]  # such as 30d


class Record(BaseModel):
    """A frozen record. A misspelt key is an error and is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _fits_a_path(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            msg = "paths and names cannot contain a zero character: remove it"
            raise ValueError(msg)
        return value


class DataTable(Record):
    """`[data]`: where the images are. Relative paths begin at the folder of the job file."""

    train: LocalPath | None = Field(
        None,
        description="Folder of good images; for a model that restores images, folder of clean images. Every task "
        "except `unpaired` needs it.",
    )
    degraded: LocalPath | None = Field(
        None,
        description="Folder of damaged images. The task `unpaired` needs `degraded` and `clean` instead of `train`.",
    )
    clean: LocalPath | None = Field(
        None, description="Folder of clean images for `unpaired`. They may show other objects than the damaged images."
    )
    labels: LocalPath | None = Field(
        None,
        description="Folder of label images with the names of the images (`segment`). `NAME_mask` and `NAME_gt` "
        "are found, too.",
    )
    licence: str | None = Field(
        None, description="Licence of the images. The card of a model that restores images states it."
    )
    max_images: PositiveInt | None = Field(
        None,
        description="Use a subset of this size, drawn by hash, if the folder has more images. "
        "Default: 4,000 for `features`, 100,000 for `whole`, 200,000 for `pixels`, 20,000 for models that restore.",
    )

    normal_changes: tuple[Literal["exposure", "sharpness", "noise", "shift", "colour"], ...] = Field(
        (),
        description="Changes that good images may show. Training shows them to the model, and thresholds and "
        "drift allow for them. This needs a linear VAE on whole images.",
    )
    group: str | None = Field(
        None,
        description='Rule for images that show the same piece and stay together: `"folders"`, or a file name pattern. '
        'In `"{piece}_*"`, `{piece}` is the name of the piece and `*` is any text. Default: each image is a piece.',
    )

    @field_validator("group")
    @classmethod
    def _group_is_a_rule(cls, rule: str | None) -> str | None:
        if rule not in (None, FOLDERS):
            pattern_of(rule)
        return rule

    @model_validator(mode="after")
    def _one_form(self) -> DataTable:
        both = {"degraded": self.degraded, "clean": self.clean}
        given = [f"'data.{name}'" for name, folder in both.items() if folder is not None]
        if self.train is not None and given:
            msg = f"'data.train' and {' and '.join(given)}: give either the one, or the two for the task unpaired"
            raise ValueError(msg)
        if self.train is None and len(given) == 1:
            other = next(name for name, folder in both.items() if folder is None)
            msg = f"'data.{other}' is missing; {given[0]} needs it: one folder of damaged and one of clean images"
            raise ValueError(msg)
        if self.train is None and not given:
            msg = (
                "'data.train' is missing, and it is required (for the task unpaired: 'data.degraded' and 'data.clean')"
            )
            raise ValueError(msg)
        return self

    @property
    def images(self) -> Path:
        """Folder of good or clean images."""
        folder = self.clean if self.train is None else self.train
        assert folder is not None  # noqa: S101 - one of the two forms
        return folder

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of images, also that of damaged images if there is one."""
        return (self.images,) if self.degraded is None else (self.images, self.degraded)


class TrainTable(Record):
    """`[train]`: how a deep VAE, or a model that restores images, is trained. The linear VAE reads `seed` alone."""

    steps: PositiveInt | None = Field(
        None,
        description="Optimiser steps. Default: chosen from the number of images; models that restore images use "
        "`minutes`.",
    )
    minutes: PositiveFloat | None = Field(
        None, description="Take as many steps as fit into this time (models that restore images). Default: 30."
    )
    batch: PositiveInt | None = Field(
        None,
        description="Images, or crops, in each step. Default: 32 on features, 16 on pixels, 8 for crops, 32 for "
        "crops on a graphics card.",
    )
    learning_rate: PositiveFloat | None = Field(
        None,
        description="Peak of the one-cycle schedule. Default: 0.002 on features, 0.001 on pixels; chosen from "
        "`model.network` and `start` for models that restore images.",
    )
    crop: PositiveInt | None = Field(
        None,
        description="Side of the crops, in pixels (models that restore images, except `colorize`). "
        "Default: 96, or 128 on a graphics card; at least 48 times `model.scale`.",
    )
    objective: Literal["elbo", "iwae", "total_correlation"] = Field(
        "elbo",
        description="What training maximises: `elbo`, the bound; `iwae`, the importance-weighted bound; "
        "`total_correlation`, the bound with `beta` on the dependence between latents alone.",
    )
    samples: PositiveInt | None = Field(
        None, description="Samples of the latent in each step. Default: 1; 8 for `iwae`."
    )
    label_weight: float | None = Field(
        None,
        ge=0,
        description="Weight of the classification loss, relative to the bound per dimension. This needs "
        "`model.classes`. Default: 1.",
    )
    beta: PositiveFloat = Field(
        1.0, description="Weight of the rate in training. The reported ELBO always has weight 1."
    )
    free_bits: float = Field(0.0, ge=0, description="Nats of each latent channel that cost nothing in training.")
    corruption: Literal["none", "noise", "hide", "cut_paste", "perlin"] | None = Field(
        None,
        description="Damage to the encoder's input. The bound is still that of the undamaged image. Default: "
        "`noise` for features of fewer than 200 training images, else `none`.",
    )
    adversarial: PositiveFloat | None = Field(
        None,
        description="Weight of a discriminator that makes results sharper; 1 is as strong as the error. For anomaly "
        "models on pixels, and tasks that undo damage. Default: no discriminator.",
    )
    adversarial_loss: Literal["hinge", "minmax"] = Field(
        "hinge", description="Loss of the discriminator. `minmax` is the original one."
    )
    patience: PositiveInt | None = Field(
        None,
        description="Stop after this many checks without a better result. Default: 6 on pixels, 8 for "
        "`colorize`; all others train to the end.",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, batches and noise.")
    start: str | None = Field(
        None,
        description="Model that gives the initial weights, such as `builtin:denoise` (models that restore "
        "images). Use it if you have few images or little time.",
    )


class CalibrateTable(Record):
    """`[calibrate]`: the false-alarm rate, and the good images that set the threshold."""

    kind: Literal["split", "cross"] | None = Field(
        None,
        description="`split` keeps some images only for calibration, and the rate is promised. `cross` makes "
        "folds of all images, and the rate is measured, not promised. Default: `cross` for a linear "
        "VAE of up to 2,000 images, else `split`; `split` if `fraction` is set.",
    )

    false_alarms: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of good images that may be flagged. Default: 0.01, or the least that the images allow.",
    )
    fraction: float | None = Field(
        None,
        gt=0,
        lt=0.8,
        description="Share of the images that is kept only for calibration. Default: 99 images, but at least "
        "0.15 and at most 0.25.",
    )

    @property
    def kind_asked(self) -> Literal["split", "cross"] | None:
        """Kind of calibration; None means that the number of images decides. A fraction means a split."""
        return "split" if self.kind is None and self.fraction is not None else self.kind

    @model_validator(mode="after")
    def _fraction_is_of_a_split(self) -> CalibrateTable:
        if self.kind == "cross" and self.fraction is not None:
            msg = (
                f"'calibrate.fraction' is {self.fraction:g}, but 'calibrate.kind' is \"cross\", which calibrates on "
                "all images, in folds: leave one of the two keys out"
            )
            raise ValueError(msg)
        return self


class PromoteTable(Record):
    """`[promote]`: when a new version becomes the champion."""

    rule: Literal["better", "always", "never"] = Field(
        "better", description="`better` promotes a version that is not worse than the champion on held-out images."
    )
    tolerance: float = Field(0.0, ge=0, le=1, description="How much worse a new version may be: AUROC, dB or Dice.")


class ScheduleTable(Record):
    """`[schedule]`: what `kintsugi serve` runs, and when.

    A time is a cron line such as `0 2 * * 0`, or an interval such as `10s`, `6h` or `1d`.
    """

    train: str | None = Field(None, description="When to train, if a training is needed: see `[retrain]`.")
    score: str | None = Field(None, description="When to score all images of `folder`.")
    restore: str | None = Field(None, description="When to restore all images of `folder`.")
    arrivals: Age | None = Field(
        None,
        description="Score, or restore, each new sub-folder of `folder` once nothing in it has changed for this "
        "time, such as `2m`.",
    )
    folder: LocalPath | None = Field(
        None, description="Folder of the images to score or restore. Every run except training needs it."
    )
    out: LocalPath | None = Field(
        None, description="Folder for the reports. Each run writes into its own folder there."
    )
    keep: Age | None = Field(
        None,
        description="Delete the output of scheduled runs after this time, such as `90d`. The output of `arrivals` "
        "is kept. Default: everything is kept.",
    )
    budget: PositiveInt | None = Field(
        None, description="Flag at most this many images in each run, those with the highest scores."
    )
    false_discoveries: float | None = Field(
        None, gt=0, lt=1, description="Share of the flagged images that may be good, instead of a false-alarm rate."
    )
    against: Literal["calibration", "folder", "auto"] = Field(
        "auto",
        description="What each score is compared with: the calibration images, or most images of the `folder`. `auto` "
        "takes the folder if its good images do not score like the calibration images.",
    )
    groups: bool = Field(False, description="Judge each sub-folder by its own calibration images, if there are enough.")
    overlap: Literal["queue", "skip"] = Field(
        "skip",
        description="Rule for a run that is due while the last one still runs. Runs of `arrivals` always queue.",
    )
    timezone: str = Field("UTC", description="Time zone of the cron lines, such as `Europe/Berlin`.")

    @field_validator("train", "score", "restore")
    @classmethod
    def _when_is_known(cls, when: str | None) -> str | None:
        if when is not None and recurrence.interval(when) is None and not recurrence.is_cron(when):
            msg = f"neither a cron line nor an interval; {recurrence.FORMS}"
            raise ValueError(msg)
        return when

    @property
    def rule(self) -> dict[str, Any]:
        """Rule for flagging, if it is not the model's own rate: arguments of the scoring flow."""
        return {name: value for name in ("budget", "false_discoveries", "groups") if (value := getattr(self, name))}

    @model_validator(mode="after")
    def _fits_together(self) -> ScheduleTable:
        keys = [f"'schedule.{key}'" for key in self.rule]
        problems = [f"{' and '.join(keys)} exclude each other: keep one of them"] if len(keys) > 1 else []
        if self.score is None and self.arrivals is None:
            problems += [
                f"{key} is a rule for scheduled scoring, and 'schedule.score' is missing: add it" for key in keys
            ]
        missing = [key for key in ("folder", "out") if getattr(self, key) is None]
        verbs = [verb for verb in ("score", "restore", "arrivals") if getattr(self, verb) is not None]
        problems += [f"'schedule.{verb}' needs 'schedule.{key}': give the folder" for verb in verbs for key in missing]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @field_validator("timezone")
    @classmethod
    def _timezone_is_one(cls, name: str, info: ValidationInfo) -> str:
        used = info.data.get("train") or info.data.get("score") or info.data.get("restore")
        if used and not recurrence.is_timezone(name):
            msg = f"'{name}' is not a time zone: use a name such as UTC or Europe/Berlin"
            raise ValueError(msg)
        return name


class RetrainTable(Record):
    """`[retrain]`: when a scheduled training runs.

    The first training always runs, and so does the training of a changed job. A training never runs with the same
    images and the same job.
    """

    new_images: PositiveInt = Field(
        1, description="Train if this many images are new or gone since the newest version."
    )
    drift: bool = Field(True, description="Train also with fewer new images if scoring has reported drift.")
    answers: PositiveInt = Field(
        20, description="Train if this many answers are new since the newest version. This needs `review.train`."
    )
    max_age: Age | None = Field(
        None, description="Train also with fewer new images if the newest version is older than this, such as `30d`."
    )


class ReviewTable(Record):
    """`[review]`: how training uses people's answers (anomaly models). `kintsugi review` asks for them."""

    train: bool = Field(
        False,
        description="Train also on images of the queue `teach` with the answer `good`. Leave out images of the "
        "training folder with the answer `defect` or `unusable`. Neither is used for calibration.",
    )
    judge: bool = Field(
        False,
        description="Judge new versions on audited images instead of synthetic defects, if there are at least 10 "
        "defects and 20 good images.",
    )


class AlarmTable(Record):
    """`[alarm]`: when a scheduled run raises an alarm. The variable `KINTSUGI_NOTIFY` names the receivers."""

    flagged: float | None = Field(
        None, gt=0, le=1, description="Raise an alarm if more than this share of the images is flagged."
    )
    failed: float | None = Field(
        None, ge=0, le=1, description="Raise an alarm if more than this share of the files cannot be read."
    )
    drift: bool = Field(True, description="Raise an alarm if the images are not like the calibration images.")
    fewest: PositiveInt = Field(20, description="Runs with fewer images raise no alarm for `flagged` or `failed`.")
