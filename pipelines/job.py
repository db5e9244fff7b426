"""The job file: one TOML file, one model. *What* to do; *where* is in the environment (`pipelines.settings`)."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
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

from pipelines import timing
from pipelines.errors import JobError
from pipelines.job_problems import explain, unknown_key

SCORING = ("reconstruct",)  # the tasks whose models score images; those of all others mend them
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


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

    train: Path = Field(description="Folder of good images; of clean ones, for a model that mends images")
    labels: Path | None = Field(None, description="Folder of label images under the same names (segment)")
    licence: str | None = Field(None, description="Of the images, for the model's card")
    max_images: PositiveInt | None = Field(
        None,
        description="More than this: a subset, drawn by hash (default: 200,000; 20,000 where details are looked at)",
    )


class ModelTable(Record):
    """`[model]`: the network. What is left out is chosen from the images and printed."""

    target: str | None = Field(
        None, description="What the bound is on: features of a frozen network, details, whole, or pixels"
    )
    backbone: str = Field("efficientnet_lite0", description="The frozen network: the one that ships, or a timm model")
    backbone_weights: Path | None = Field(None, description="File of weights for it (default: timm downloads them)")
    strides: tuple[PositiveInt, ...] | None = Field(None, description="Reductions at which its maps are taken")
    stride_weights: tuple[PositiveFloat, ...] | None = Field(None, description="Weight of each in the likelihood")
    smooth: Literal[True, False, "both"] | None = Field(
        None, description="Average features over 3x3 places; both: averaged, mostly for the score, and not, for the map"
    )
    standardise: bool | None = Field(
        None, description="Same brightness and contrast for every image (default: if exposure varies most)"
    )
    size: tuple[PositiveInt, PositiveInt] | PositiveInt | None = Field(
        None, description="Working size: [height, width], or the longest side"
    )
    likelihood: str | None = Field(None, description="gaussian, shared_gaussian, laplace, discretised_logistic, ...")
    latent: Literal["grid", "vector"] | None = Field(None, description="Latents for each place, or one vector for all")
    latent_channels: PositiveInt | None = Field(None, description="Latents in each cell of the grid, or in the vector")
    width: PositiveInt | None = Field(None, description="Channels of the network's inner maps")
    stages: PositiveInt | None = Field(None, description="Halvings of the resolution")
    blocks: PositiveInt | None = Field(None, description="Residual blocks in each stage (pixels only)")
    pooling: str = Field(
        "auto",
        pattern=r"^(auto|mean|(top|soft):[0-9.]+)$",
        description="From places to the score: mean, top:SHARE, soft:SHARPNESS; auto tries them",
    )
    levels: Literal[1, 2] = Field(1, description="Levels of latents: 2 adds a vector above the grid")
    score: Literal["elbo", "complexity", "ratio", "iwae"] = Field(
        "elbo",
        description="-ELBO; with the image's own complexity (pixels only); how much the lower of two levels adds; IWAE",
    )
    aligned: bool | None = Field(None, description="Whether all images show one object in one place")
    samples: PositiveInt = Field(4, description="Samples of the latent in each score")
    # Of models that mend images:
    network: Literal["S", "M"] | None = Field(None, description="S for processors, M for graphics cards (restoration)")
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        max_length=256,
        description="Names of the labels' values 0, 1, 2, ... (segment; default: background, and all above zero)",
    )
    scale: Literal[2, 3, 4] | None = Field(None, description="How much larger the result is (super_resolution)")
    damage: str | None = Field(None, description="Kind of damage to undo, of those that the task knows (restoration)")
    level: float | None = Field(None, gt=0, description="One strength of it, such as a sigma (default: all of them)")

    @property
    def leaves_features_open(self) -> bool:
        """Whether it is left to the images which features are used."""
        asked = (self.target, self.strides, self.stride_weights, self.smooth)
        return all(choice is None for choice in asked) and self.levels == 1

    @property
    def says_nothing_of_places(self) -> bool:
        """Whether nothing is asked for that only features by place have, or that some likelihoods alone have."""
        asked = (self.stages, self.aligned, self.latent, self.likelihood, self.size)
        return all(choice is None for choice in asked) and self.pooling == "auto" and self.score == "elbo"

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
    beta: PositiveFloat = Field(1.0, description="Weight of the rate in training; the reported ELBO always has 1")
    free_bits: float = Field(0.0, ge=0, description="Nats per latent channel that cost nothing in training")
    corruption: Literal["none", "noise", "hide", "cut_paste", "perlin"] | None = Field(
        None,
        description="Damage to what the encoder sees; the bound is of the undamaged (default: noise on few images)",
    )
    patience: PositiveInt | None = Field(None, description="Stop after this many checks without a better ELBO")
    seed: int = Field(0, ge=0, description="Of weights, batches and noise")
    start: str | None = Field(
        None, description="A model whose weights training begins with, such as builtin:denoise (restoration)"
    )


class CalibrateTable(Record):
    """`[calibrate]`: the promised false-alarm rate."""

    false_alarms: float | None = Field(
        None, gt=0, lt=1, description="Share of good images flagged (default: 0.01, or the least the data allow)"
    )
    fraction: float | None = Field(
        None, gt=0, lt=0.8, description="Share of the images kept for calibration (default: 0.15 to 0.25)"
    )


class PromoteTable(Record):
    """`[promote]`: when a new version becomes champion."""

    rule: Literal["better", "always", "never"] = Field("better", description="better: measured against the champion")
    tolerance: float = Field(0.0, ge=0, le=1, description="AUROC, dB, or Dice, that a challenger may be short of")


class ScheduleTable(Record):
    """`[schedule]`: what `kintsugi serve` runs by itself. Times are cron lines or intervals such as 10s, 6h, 1d."""

    train: str | None = Field(None, description="When to train")
    score: str | None = Field(None, description="When to score `folder`")
    restore: str | None = Field(None, description="When to mend the images of `folder`")
    folder: Path | None = Field(None, description="What to score, or to mend")
    out: Path | None = Field(None, description="Where reports go, each run in a folder of its own")
    budget: PositiveInt | None = Field(None, description="Flag at most so many images in each run, the worst of all")
    false_discoveries: float | None = Field(
        None, gt=0, lt=1, description="Instead of a false-alarm rate: share of the flagged images that may be good"
    )
    groups: bool = Field(False, description="Judge each sub-folder by its own calibration images, if enough")
    overlap: Literal["queue", "skip"] = Field("skip", description="When a run is due while the last one still runs")
    timezone: str = Field("UTC", description="Of cron lines, such as Europe/Berlin")

    @field_validator("train", "score", "restore")
    @classmethod
    def _when_is_known(cls, when: str | None) -> str | None:
        if when is not None and timing.interval(when) is None and not timing.is_cron(when):
            msg = f"neither cron nor interval; {timing.FORMS}"
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
        if self.score is None:
            problems += [f"{key} says what scheduled scoring flags, and there is no 'schedule.score'" for key in keys]
        missing = [key for key in ("folder", "out") if getattr(self, key) is None]
        verbs = [verb for verb in ("score", "restore") if getattr(self, verb) is not None]
        problems += [f"'schedule.{verb}' needs 'schedule.{key}': name the folder" for verb in verbs for key in missing]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @field_validator("timezone")
    @classmethod
    def _timezone_is_one(cls, name: str, info: ValidationInfo) -> str:
        used = info.data.get("train") or info.data.get("score") or info.data.get("restore")
        if used and not timing.is_timezone(name):
            msg = f"'{name}' is not a time zone: use a name such as UTC or Europe/Berlin"
            raise ValueError(msg)
        return name


class Job(Record):
    """A whole job file."""

    name: str = Field(description="Name of the model in the registry")
    task: str = Field(description="What to train: reconstruct, denoise, super_resolution, ...")
    data: DataTable
    model: ModelTable = ModelTable()
    train: TrainTable = TrainTable()
    calibrate: CalibrateTable = CalibrateTable()
    promote: PromoteTable = PromoteTable()
    schedule: ScheduleTable = ScheduleTable()
    path: Path = Field(exclude=True, description="The job file itself")

    @property
    def verb(self) -> str:
        """What its model does to a folder."""
        return verb_of(self.task)

    @model_validator(mode="after")
    def _schedule_is_of_the_task(self) -> Job:
        other = {"score": "restore", "restore": "score"}[self.verb]
        if getattr(self.schedule, other) is not None:
            msg = f"'schedule.{other}' has no meaning for {self.task}: its models {self.verb} images; use that key"
            raise ValueError(msg)
        return self

    def set_options(self, *tables: str) -> list[str]:
        """The keys of some tables that say something else than their default, as `table.key`."""
        return [
            f"{name}.{key}"
            for name in tables
            for key, value in getattr(self, name)
            if not (field := type(getattr(self, name)).model_fields[key]).is_required() and value != field.default
        ]

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            msg = f"{name!r} is not a model name: use letters, digits, '.', '_' and '-', at most 100"
            raise ValueError(msg)
        return name

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, name: str) -> str:
        if name not in (known := task_names()):
            msg = f"there is no such task; there are: {', '.join(known)}"
            raise ValueError(msg)
        return name


def verb_of(task: str) -> str:
    """What models of a task do to a folder: score or restore."""
    return "score" if task in SCORING else "restore"


def task_names() -> list[str]:
    """The tasks there are: one file each, as `vaecore.tasks` reads them, whose import would import torch."""
    spec = importlib.util.find_spec("vaecore.tasks")
    places = spec.submodule_search_locations if spec else None
    return sorted(module.name for module in pkgutil.iter_modules(places) if module.name != "base")


def load_job(path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """Read a job file.

    Args:
        path: The TOML file.
        overrides: `key=value` pairs such as `train.steps=500`; values are read as TOML, else as text.

    Returns:
        The job with absolute paths.

    Raises:
        JobError: The file is missing or not TOML, or a key or a value is wrong; the message names it.
    """
    path = Path(path)
    try:
        document = _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"there is no job file {path}: write one (README.md shows the four lines that it needs)"
        raise JobError(msg) from None
    except IsADirectoryError:
        msg = f"{path} is a folder: give a job file, such as {path / 'job.toml'} (README.md shows what one needs)"
        raise JobError(msg) from None
    except OSError as error:
        msg = f"the job file {path} cannot be read: {error.strerror or error}"
        raise JobError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"the job file {path} is not UTF-8 text: {error}"
        raise JobError(msg) from None
    except ValueError as error:
        msg = f"the job file {path} is not TOML: {error}"
        raise JobError(msg) from None
    for override in overrides:
        _apply(document, override)
    return job_from_document(document, path)


def job_from_document(document: dict[str, Any], path: Path) -> Job:
    """Check a parsed job and make its paths absolute, relative ones counting from the job file.

    Raises:
        JobError: A key or a value is wrong.
    """
    problems = [unknown_key(Job, ("path",), path)] if "path" in document else []
    try:
        job = Job.model_validate({**document, "path": path.resolve()})
    except ValidationError as error:
        raise JobError("\n".join([*problems, *explain(error, Job, path)])) from None
    if problems:
        raise JobError(problems[0])
    base = job.path.parent
    labels = None if job.data.labels is None else base / job.data.labels
    data = job.data.model_copy(update={"train": base / job.data.train, "labels": labels})
    weights = job.model.backbone_weights
    model = job.model.model_copy(update={"backbone_weights": None if weights is None else base / weights})
    places = {key: base / value for key in ("folder", "out") if (value := getattr(job.schedule, key)) is not None}
    return job.model_copy(update={"data": data, "model": model, "schedule": job.schedule.model_copy(update=places)})


def _parsed(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: It is none, or one that nobody writes: thousands of brackets, numbers of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it has too many brackets within each other") from None


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        msg = f"--set takes key=value, such as train.steps=500, not '{override}'"
        raise JobError(msg)
    if (plain := override.encode("utf-8", "backslashreplace").decode()) != override:
        msg = f"--set {plain} is not UTF-8 text"
        raise JobError(msg)
    try:
        value = _parsed(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    *tables, last = key.strip().split(".")
    for name in tables:
        table: object = document.setdefault(name, {})
        if not isinstance(table, dict):
            msg = f"--set {key}: '{name}' is a value, not a table"
            raise JobError(msg)
        document = table
    document[last] = value
