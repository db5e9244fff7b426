"""The job file: one TOML file, one model. *What* to do; *where* is in the environment (`pipelines.settings`)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.base.files import TextError, read_text
from pipelines.base.paths import from_home
from pipelines.errors import JobError
from pipelines.jobfile.model_table import ModelTable
from pipelines.jobfile.problems import explain, unknown_key
from pipelines.jobfile.tables import (
    AlarmTable,
    CalibrateTable,
    DataTable,
    PromoteTable,
    Record,
    RetrainTable,
    ReviewTable,
    ScheduleTable,
    TrainTable,
    kinds_in,
)

UNPAIRED = ("unpaired",)  # the tasks that learn from two folders of unrelated images
SCORING = ("reconstruct",)  # the tasks whose models score images; models of all other tasks restore images
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Job(Record):
    """A whole job file."""

    name: str = Field(description="Name of the model in the registry.")
    task: str = Field(
        description="What the model does. `reconstruct` scores images and finds the abnormal ones. `denoise`, "
        "`dejpeg`, `photo` (noise and JPEG of cameras), `super_resolution` and `unpaired` (damage that is learned) "
        "restore images. `segment` labels pixels, and `colorize` colours grey images.",
    )
    data: DataTable
    model: ModelTable = ModelTable()
    train: TrainTable = TrainTable()
    calibrate: CalibrateTable = CalibrateTable()
    promote: PromoteTable = PromoteTable()
    schedule: ScheduleTable = ScheduleTable()
    retrain: RetrainTable = RetrainTable()
    review: ReviewTable = ReviewTable()
    alarm: AlarmTable = AlarmTable()
    path: Path = Field(exclude=True, description="The job file itself.")

    @property
    def verb(self) -> str:
        """Command for its model: score or restore."""
        return verb_of(self.task)

    @model_validator(mode="after")
    def _review_is_of_the_task(self) -> Job:
        asked = [key for key in ("train", "judge") if getattr(self.review, key)]
        if asked and self.verb == "restore":
            msg = f"'review.{asked[0]}' has no meaning for {self.task}: answers change models that score images"
            raise ValueError(msg)
        others = {"data.group": self.data.group, "model.classes": self.model.classes}
        for key, value in others.items():
            if self.review.train and value is not None:
                msg = f"'review.train' and '{key}': it is not known of images from elsewhere; leave one of them out"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _schedule_is_of_the_task(self) -> Job:
        other = {"score": "restore", "restore": "score"}[self.verb]
        if getattr(self.schedule, other) is not None:
            msg = f"'schedule.{other}' has no meaning for {self.task}: its models {self.verb} images; use that key"
            raise ValueError(msg)
        asked = [*self.schedule.rule, *self.schedule.model_fields_set & {"against"}]
        if self.verb == "restore" and asked:
            keys = " and ".join(f"'schedule.{key}'" for key in asked)
            msg = f"{keys} cannot be used for {self.task}: its models flag no images; leave it out"
            raise ValueError(msg)
        if self.verb == "restore" and self.alarm.flagged is not None:
            msg = f"'alarm.flagged' has no meaning for {self.task}: its models flag no images; use 'alarm.failed'"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _folders_are_of_the_task(self) -> Job:
        alone = self.data.degraded is not None
        if alone and self.task not in UNPAIRED:
            msg = f"'data.degraded' and 'data.clean' are for the task unpaired; {self.task} takes 'data.train'"
            raise ValueError(msg)
        if not alone and self.task in UNPAIRED:
            msg = f"'data.train' is not enough for {self.task}: give 'data.degraded' and 'data.clean'"
            raise ValueError(msg)
        if alone and self.data.degraded == self.data.clean:
            both = self.data.clean
            msg = f"'data.degraded' and 'data.clean' are both {both}: put damaged and clean images into two folders"
            raise ValueError(msg)
        return self

    def set_options(self, *tables: str) -> list[str]:
        """Return the keys of some tables whose value is not the default, as `table.key`."""
        return [
            f"{name}.{key}"
            for name in tables
            for key, value in getattr(self, name)
            if not (field := type(getattr(self, name)).model_fields[key]).is_required() and value != field.default
        ]

    def flatten(self) -> dict[str, Any]:
        """Return the job as `table.key` and values, as runs are tagged with it."""
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json").items():
            flat |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
        return flat

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
            msg = f"unknown task; the tasks are: {', '.join(known)}"
            raise ValueError(msg)
        return name


def verb_of(task: str) -> str:
    """Return the command for models of a task: score or restore."""
    return "score" if task in SCORING else "restore"


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return kinds_in("vaecore.tasks")


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
        document = _parsed(read_text(path))
    except FileNotFoundError:
        msg = f"the job file {path} does not exist: write one (README.md shows the four lines that it needs)"
        raise JobError(msg) from None
    except IsADirectoryError:
        msg = f"{path} is a folder: give a job file, such as {path / 'job.toml'} (README.md shows what one needs)"
        raise JobError(msg) from None
    except OSError as error:
        msg = f"the job file {path} cannot be read: {error.strerror or error}"
        raise JobError(msg) from None
    except TextError as error:
        msg = f"the job file {path} {error}"
        raise JobError(msg) from None
    except ValueError as error:
        msg = f"the job file {path} is not TOML: {error}{_hint(str(error))}"
        raise JobError(msg) from None
    for override in overrides:
        _apply(document, override)
    return job_from_document(document, path)


def job_from_document(document: dict[str, Any], path: Path) -> Job:
    """Check a parsed job and make its paths absolute: `~` is the user's home, relative ones count from the job file.

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
    named = {key: getattr(job.data, key) for key in ("train", "degraded", "clean", "labels")}
    data = job.data.model_copy(update={key: _absolute(base, folder) for key, folder in named.items()})
    weights = job.model.backbone_weights
    model = job.model.model_copy(update={"backbone_weights": _absolute(base, weights)})
    places = {key: _absolute(base, getattr(job.schedule, key)) for key in ("folder", "out")}
    out, folder = places["out"], places["folder"]
    if job.schedule.arrivals and out and folder and out.resolve().is_relative_to(folder.resolve()):
        raise JobError(f"{path}: 'schedule.out' lies in 'schedule.folder', so reports would arrive there: move it out")
    return job.model_copy(update={"data": data, "model": model, "schedule": job.schedule.model_copy(update=places)})


def _hint(error: str) -> str:
    """Return what to do about the usual faults of people who do not know TOML."""
    if "Unescaped" in error or "escape" in error:
        return ". In double quotes, write / instead of \\; or put the text in single quotes"
    return '. Put text in quotes: train = "images/good"' if "Invalid value" in error else ""


def _absolute(base: Path, path: Path | None) -> Path | None:
    return None if path is None else base / from_home(path)


def _parsed(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises:
        ValueError: The text is not TOML, or is absurd: thousands of brackets, numbers of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


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


def to_toml(value: object) -> str:
    """Write a value of a job as TOML: the same as JSON, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
