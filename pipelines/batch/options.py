"""What a run over a folder is asked for: one record for each verb, checked before a model is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.anomaly.against import Against
from pipelines.anomaly.verdicts import check_rule
from pipelines.batch.schema import Row
from pipelines.errors import CalibrationError, FolderError
from pipelines.images.camera_bits import check_bits
from pipelines.images.write import SUFFIXES, FileKind, file_kind
from pipelines.jobfile.tables import AlarmTable

MOST_SAMPLES = 64
Observer = Callable[[Row, NDArray[Any]], None]  # a row and its anomaly map (H, W)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of every verb.

    Attributes:
        fresh: Forget what earlier runs did.
        alarm: When the run raises an alarm; None: never.
        series: The output folder is one of many in one folder, and its report links to the page over time.
    """

    fresh: bool = False
    alarm: AlarmTable | None = None
    series: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions(RunOptions):
    """Options of a run that scores; `score_folder` explains them.

    Raises:
        CalibrationError: Two rules exclude each other, a rate is out of range, or there is no such calibration file.
    """

    false_alarms: float | None = None
    budget: int | None = None
    false_discoveries: float | None = None
    groups: bool = False
    group_level: int = 0
    calibration: Path | None = None
    all_maps: bool = False
    observer: Observer | None = None
    drift_below: tuple[str, ...] = ()
    against: Against = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make good."""
        check_rule(self.false_alarms, budget=self.budget, false_discoveries=self.false_discoveries, groups=self.groups)
        if self.calibration is not None and not self.calibration.is_file():
            msg = f"the calibration file {self.calibration} does not exist: give the calibration.json of the model"
            raise CalibrationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions(RunOptions):
    """Options of a run that restores; `restore_folder` explains them.

    Raises:
        FolderError: There is no such kind of file, or a number is out of range.
    """

    kind: str = "png"
    reference: Path | None = None
    samples: int = 0
    bits: int | None = None
    gps: bool = True
    strength: float = 1.0
    stamp: bool = True

    def __post_init__(self) -> None:
        """Refuse what no model could make good."""
        _ = self.file_kind
        if not 0 <= self.strength <= 1:
            raise FolderError(f"strength is {self.strength:g}: from 0 (the image as it is) to 1 (the result)")
        if not 0 <= self.samples <= MOST_SAMPLES:
            raise FolderError(f"samples is {self.samples}: from 0 to {MOST_SAMPLES}")
        check_bits(self.bits)

    @property
    def file_kind(self) -> FileKind:
        """The kind of file that `kind` stands for, which may be a suffix."""
        if (found := file_kind(self.kind)) is None:
            raise FolderError(f"'{self.kind}' is not an output format: use {', '.join(SUFFIXES)}")
        return found
