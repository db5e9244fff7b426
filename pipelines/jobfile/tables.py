"""The tables of a job file, each a record that refuses keys it does not know."""

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
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from pipelines.base.paths import expect_local
from pipelines.jobfile import recurrence
from pipelines.jobfile.piece_names import FOLDERS, pattern_of

LocalPath = Annotated[Path, BeforeValidator(expect_local)]


def _length_of_time(text: str) -> str:
    """The same, if it is one.

    Raises:
        ValueError: It is none.
    """
    if recurrence.interval(text) is None:
        msg = 'no length of time; write one such as "30d" (s, m, h, d, w)'
        raise ValueError(msg)
    return text


def kinds_in(package: str) -> list[str]:
    """The kinds that a package has, one file each: its own import would import torch."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return sorted(module.name for module in pkgutil.iter_modules(places) if module.name != "base")


ClassNames = Annotated[tuple[str, ...], Field(min_length=2, max_length=256)]
Age = Annotated[str, AfterValidator(_length_of_time)]  # such as 30d


class Record(BaseModel):
    """Frozen, and a misspelt key is an error rather than silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _fits_a_path(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            msg = "no file and no name can hold a zero character: leave it out"
            raise ValueError(msg)
        return value


class DataTable(Record):
    """`[data]`: where the images are; paths are relative to the job file."""

    train: LocalPath | None = Field(
        None, description="Folder of good images; of clean ones, for a model that mends images"
    )
    degraded: LocalPath | None = Field(None, description="Instead: folder of damaged images, and (unpaired)")
    clean: LocalPath | None = Field(None, description="folder of clean ones, of other things")
    labels: LocalPath | None = Field(None, description="Folder of label images under the same names (segment)")
    licence: str | None = Field(None, description="Of the images, for the model's card")
    max_images: PositiveInt | None = Field(
        None,
        description="More than this: a subset, drawn by hash (default: 200,000; 20,000 where details are looked at)",
    )

    normal_changes: tuple[Literal["exposure", "sharpness", "noise", "shift", "colour"], ...] = Field(
        (),
        description="Changes that good images may show: training, thresholds and drift reckon with them",
    )
    group: str | None = Field(
        None,
        description='Images of one piece, which stay together: "folders", or a pattern of names, "{piece}_*" say',
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
            msg = f"'data.{other}' is missing; {given[0]} needs it: damaged images and clean ones, of other things"
            raise ValueError(msg)
        if self.train is None and not given:
            msg = "'data.train' is missing; it is needed (for the task unpaired: 'data.degraded' and 'data.clean')"
            raise ValueError(msg)
        return self

    @property
    def images(self) -> Path:
        """The folder of good, or clean, images."""
        folder = self.clean if self.train is None else self.train
        assert folder is not None  # noqa: S101 - one of the two forms
        return folder

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of images: damaged ones, too, where they have one of their own."""
        return (self.images,) if self.degraded is None else (self.images, self.degraded)


class ModelTable(Record):
    """`[model]`: the network. What is left out is chosen from the images and printed."""

    target: str | None = Field(
        None, description="What the bound is on: features of a frozen network, whole (one place), or pixels"
    )
    vae: Literal["linear", "deep"] | None = Field(
        None, description="linear: in closed form, in seconds; deep: a network that is trained (default: from the rest)"
    )
    experts: tuple[str, ...] | None = Field(
        None,
        description="Densities of the features beside a linear VAE: place_gaussian, gaussian, memory",
    )
    backbone: str = Field(
        "efficientnet_lite0", description="The frozen network: this one ships; efficientnet_lite2, or a timm model"
    )
    backbone_weights: LocalPath | None = Field(
        None, description="File of weights for it (default: timm downloads them)"
    )
    strides: tuple[PositiveInt, ...] | None = Field(None, description="Reductions at which its maps are taken")
    layers: tuple[PositiveInt, ...] | None = Field(
        None, description="Instead, of a vision transformer: layers whose tokens are taken (default: two of the middle)"
    )
    standardise: bool | None = Field(
        None, description="Same brightness and contrast for every image (default: if exposure varies most)"
    )
    size: tuple[PositiveInt, PositiveInt] | PositiveInt | None = Field(
        None, description="Working size: [height, width], or the longest side"
    )
    windows: bool | None = Field(
        None,
        description="Look at large images in overlapping windows at full resolution, in place of resizing them "
        "(default: if resizing would shrink them to a quarter, and no size is asked for)",
    )
    likelihood: str | None = Field(None, description="gaussian, shared_gaussian, laplace, discretised_logistic, ...")
    latent: Literal["grid", "vector"] | None = Field(None, description="Latents for each place, or one vector for all")
    latent_channels: PositiveInt | None = Field(None, description="Latents in each cell of the grid, or in the vector")
    width: PositiveInt | None = Field(None, description="Channels of the network's inner maps")
    stages: PositiveInt | None = Field(None, description="Halvings of the resolution")
    blocks: PositiveInt | None = Field(None, description="Residual blocks in each stage (pixels only)")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the inner maps left out in each step of training (pixels only)"
    )
    levels: Literal[1, 2] = Field(1, description="Levels of latents: 2 adds a vector above the grid")
    prior: str = Field(
        "standard",
        description="p(z): standard normal, a learned mixture, one fitted to the latents after training, vamp: of "
        "learned images, none: an autoencoder, ...",
    )
    components: PositiveInt | None = Field(None, description="Of the mixture, or learned images (default: 50)")
    score: Literal["places", "elbo", "complexity", "ratio", "iwae"] | None = Field(
        None,
        description="places: the bound's terms by place, and the experts', standardised and pooled; elbo: -ELBO; "
        "complexity: with the image's own (pixels only); ratio: how much the lower of two levels adds; iwae (default: "
        "places; of a single place, elbo)",
    )
    samples: PositiveInt = Field(4, description="Samples of the latent in each score")
    # Of models that mend images:
    network: Literal["S", "M"] | None = Field(None, description="S for processors, M for graphics cards (restoration)")
    classes: ClassNames | Literal["folders"] | None = Field(
        None,
        description="Names of the labels' values 0, 1, 2, ... (segment; default: background, and all above zero); "
        'reconstruct: "folders", each sub-folder of the training folder being a class of images',
    )
    scale: Literal[2, 3, 4] | None = Field(None, description="How much larger the result is (super_resolution)")
    damage: str | None = Field(None, description="Kind of damage to undo, of those that the task knows (restoration)")
    level: float | None = Field(None, gt=0, description="One strength of it, such as a sigma (default: all of them)")

    @property
    def says_nothing_of_places(self) -> bool:
        """Whether nothing is asked for that only features by place have, or that some likelihoods alone have."""
        asked = (
            self.target,
            self.strides,
            self.layers,
            self.vae,
            self.experts,
            self.stages,
            self.latent,
            self.likelihood,
            self.size,
            self.windows,
        )
        return all(choice is None for choice in asked) and self.levels == 1 and self.score in (None, "elbo")

    @field_validator("prior")
    @classmethod
    def _prior_is_known(cls, name: str) -> str:
        if name not in (known := kinds_in("vaecore.priors")):
            msg = f"there is no such prior; there are: {', '.join(known)}"
            raise ValueError(msg)
        return name

    @field_validator("classes", mode="wrap")
    @classmethod
    def _classes_are_told_once(cls, classes: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(classes)
        except ValidationError:
            msg = 'give "folders" (reconstruct), or from 2 to 256 names of labels (segment): ["background", "cell"]'
            raise ValueError(msg) from None

    @field_validator("size", mode="wrap")
    @classmethod
    def _size_is_told_once(cls, size: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(size)
        except ValidationError:  # it has a complaint for each form that a size may have
            msg = "give the longest side or [height, width], in pixels: 256, or [256, 320]"
            raise ValueError(msg) from None


class TrainTable(Record):
    """`[train]`: optimisation."""

    steps: PositiveInt | None = Field(None, description="Optimiser steps (default: from the number of images)")
    minutes: PositiveFloat | None = Field(None, description="Instead: as many steps as this takes (restoration)")
    batch: PositiveInt | None = Field(None, description="Images in each step")
    learning_rate: PositiveFloat | None = Field(None, description="Peak of the one-cycle schedule")
    crop: PositiveInt | None = Field(None, description="Side of the crops that are trained on (restoration)")
    objective: Literal["elbo", "iwae", "total_correlation"] = Field(
        "elbo",
        description="The bound; the importance-weighted one; or the bound, with beta on the latents' dependence alone",
    )
    samples: PositiveInt | None = Field(None, description="Of the latent in each step (default: 1; 8 for iwae)")
    label_weight: float | None = Field(
        None, ge=0, description="Of telling classes apart, in nats, beside the bound per dimension (default: 1)"
    )
    beta: PositiveFloat = Field(1.0, description="Weight of the rate in training; the reported ELBO always has 1")
    free_bits: float = Field(0.0, ge=0, description="Nats per latent channel that cost nothing in training")
    corruption: Literal["none", "noise", "hide", "cut_paste", "perlin"] | None = Field(
        None,
        description="Damage to what the encoder sees; the bound is of the undamaged (default: noise on few images)",
    )
    adversarial: PositiveFloat | None = Field(
        None,
        description="Also train against a discriminator, for sharp images; 1: as hard as the error (default: no)",
    )
    adversarial_loss: Literal["hinge", "minmax"] = Field(
        "hinge", description="Its loss: hinge, or minmax, the original one"
    )
    patience: PositiveInt | None = Field(None, description="Stop after this many checks without a better ELBO")
    seed: int = Field(0, ge=0, description="Of weights, batches and noise")
    start: str | None = Field(
        None, description="A model whose weights training begins with, such as builtin:denoise (restoration)"
    )


class CalibrateTable(Record):
    """`[calibrate]`: the false-alarm rate, and the good images that it rests on."""

    kind: Literal["split", "cross"] | None = Field(
        None,
        description="split: some images for calibration alone, the rate is promised; cross: folds over all images, the "
        "rate is asked and measured (default: from the number of images; split where `fraction` is given)",
    )

    false_alarms: float | None = Field(
        None, gt=0, lt=1, description="Share of good images flagged (default: 0.01, or the least the data allow)"
    )
    fraction: float | None = Field(
        None, gt=0, lt=0.8, description="Share of the images kept for calibration alone (default: 0.15 to 0.25)"
    )

    @property
    def kind_asked(self) -> Literal["split", "cross"] | None:
        """The kind of calibration; None leaves it to the number of images. A fraction kept apart is a split."""
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
    """`[promote]`: when a new version becomes champion."""

    rule: Literal["better", "always", "never"] = Field("better", description="better: measured against the champion")
    tolerance: float = Field(0.0, ge=0, le=1, description="AUROC, dB, or Dice, that a challenger may be short of")


class ScheduleTable(Record):
    """`[schedule]`: what `kintsugi serve` runs by itself. Times are cron lines or intervals such as 10s, 6h, 1d."""

    train: str | None = Field(None, description="When to train")
    score: str | None = Field(None, description="When to score `folder`")
    restore: str | None = Field(None, description="When to mend the images of `folder`")
    arrivals: Age | None = Field(
        None, description="Do each new sub-folder of `folder` once nothing in it has changed for so long, such as 2m"
    )
    folder: LocalPath | None = Field(None, description="What to score, or to mend")
    out: LocalPath | None = Field(None, description="Where reports go, each run in a folder of its own")
    keep: Age | None = Field(None, description="Remove what scheduled runs left when it is so old, such as 90d")
    budget: PositiveInt | None = Field(None, description="Flag at most so many images in each run, the worst of all")
    false_discoveries: float | None = Field(
        None, gt=0, lt=1, description="Instead of a false-alarm rate: share of the flagged images that may be good"
    )
    against: Literal["calibration", "folder", "auto"] = Field(
        "auto",
        description="What images are judged against: calibration; folder: where most of its images lie; auto: the "
        "folder once its good images score otherwise",
    )
    groups: bool = Field(False, description="Judge each sub-folder by its own calibration images, if enough")
    overlap: Literal["queue", "skip"] = Field("skip", description="When a run is due while the last one still runs")
    timezone: str = Field("UTC", description="Of cron lines, such as Europe/Berlin")

    @field_validator("train", "score", "restore")
    @classmethod
    def _when_is_known(cls, when: str | None) -> str | None:
        if when is not None and recurrence.interval(when) is None and not recurrence.is_cron(when):
            msg = f"neither cron nor interval; {recurrence.FORMS}"
            raise ValueError(msg)
        return when

    @property
    def rule(self) -> dict[str, Any]:
        """Which images are flagged, where that is not by the model's own rate: as the scoring flow takes it."""
        return {name: value for name in ("budget", "false_discoveries", "groups") if (value := getattr(self, name))}

    @model_validator(mode="after")
    def _fits_together(self) -> ScheduleTable:
        keys = [f"'schedule.{key}'" for key in self.rule]
        problems = [f"{' and '.join(keys)} are rules of their own: leave all but one out"] if len(keys) > 1 else []
        if self.score is None and self.arrivals is None:
            problems += [f"{key} says what scheduled scoring flags, and there is no 'schedule.score'" for key in keys]
        missing = [key for key in ("folder", "out") if getattr(self, key) is None]
        verbs = [verb for verb in ("score", "restore", "arrivals") if getattr(self, verb) is not None]
        problems += [f"'schedule.{verb}' needs 'schedule.{key}': name the folder" for verb in verbs for key in missing]
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
    """`[retrain]`: when a scheduled training goes ahead. With the same images and the same job it never does."""

    new_images: PositiveInt = Field(1, description="So many images are new, or gone, since the newest version")
    drift: bool = Field(True, description="Or fewer, once scoring has reported drift")
    max_age: Age | None = Field(None, description="Or fewer, once the newest version is so old, such as 30d")


class AlarmTable(Record):
    """`[alarm]`: when a scheduled run raises an alarm, and who hears of it is set where things run."""

    flagged: float | None = Field(None, gt=0, le=1, description="More than this share of the images is flagged")
    failed: float | None = Field(None, ge=0, le=1, description="More than this share of the files cannot be read")
    drift: bool = Field(True, description="The images are not like those that the model was calibrated on")
    fewest: PositiveInt = Field(20, description="Shares of fewer images raise no alarm")
