"""What an output folder says about itself: run.json, evaluation.json and the gallery, each of which may be missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.base.parquet import open_parquet
from pipelines.errors import FolderError

RESULTS = "results.parquet"
RUN = "run.json"
EVALUATION = "evaluation.json"
REVIEW = "review.json"  # what people have answered
GALLERY = ".kintsugi-run/gallery.parquet"


# Whether the rate is meant for images of a sub-folder; older runs call it promised, since theirs always was.
_REPRESENTED = AliasChoices("represented", "promised")


class Record(BaseModel):
    """A part of a file that a run wrote."""

    # Unknown keys are let through: a report of a newer run is better than none.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelFacts(Record):
    """The model that a run used."""

    ref: str | None = None
    name: str | None = None
    version: str | int | None = None
    sha256: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    card: str | None = None


class JudgeFacts(Record):
    """What images of a sub-folder were judged by."""

    n: int  # calibration images
    threshold: float


class GroupFacts(Record):
    """One sub-folder of a run that judged by group."""

    name: str
    n: int = 0  # calibration images
    threshold: float | None = None  # its own; None: that of all others
    images: int = 0
    judged_by: JudgeFacts | None = None  # None: an older run's
    represented: bool = Field(default=False, validation_alias=_REPRESENTED)


class OtherFacts(Record):
    """What sub-folders with too few calibration images for a threshold of their own were judged by."""

    n: int = 0  # calibration images
    # These are of such sub-folders themselves, and enough for the rate.
    represented: bool = Field(default=False, validation_alias=_REPRESENTED)


class GroupedFacts(Record):
    """How a run judged by group."""

    needed: int = 0  # calibration images that a group needs
    others: OtherFacts = OtherFacts()
    groups: tuple[GroupFacts, ...] = ()
    unpromised: int = 0  # images judged by calibration images of other sub-folders

    @property
    def seen(self) -> tuple[GroupFacts, ...]:
        """The groups that the run has images of."""
        return tuple(group for group in self.groups if group.images)

    @property
    def knows_groups(self) -> bool:
        """Return whether the calibration knows sub-folders."""
        return any(group.n for group in self.groups)

    @property
    def is_plain(self) -> bool:
        """Whether all images were judged as in a run without groups: they lie in no sub-folder that is known."""
        return bool(self.groups) and not self.knows_groups and all(group.represented for group in self.groups)

    @field_validator("groups")
    @classmethod
    def _older_runs_say_it_otherwise(
        cls, groups: tuple[GroupFacts, ...], info: ValidationInfo
    ) -> tuple[GroupFacts, ...]:
        """Find whether the rate is meant for sub-folders of an older run: not, where calibration never saw one."""
        pooled = info.data.get("others", OtherFacts()).represented
        return tuple(
            each
            if each.judged_by
            else each.model_copy(update={"represented": each.threshold is not None or (pooled and each.n > 0)})
            for each in groups
        )


class HeatFacts(Record):
    """What colours and outlines of heat maps mean, in shares of good images' places."""

    level: float
    speck_percent: float
    places: int | None = None
    smallest: float | None = None
    colours: tuple[tuple[float, float], ...] = ()  # share, and where on the ramp it is


class CalibrationFacts(Record, RateClaim):
    """The normal images that verdicts are made by: held out, or scored out of fold."""

    n: int
    false_alarms: float
    threshold: float
    rule: str | None = None  # where the threshold comes from when it is not the false-alarm rate alone
    scores: tuple[float, ...] = ()
    grouped: GroupedFacts | None = None


class MovedFacts(Record):
    """One statistic of the images, beside that of the calibration images."""

    name: str
    effect: float
    p_value: float
    calibration: tuple[float, ...]  # quantiles of `pipelines.anomaly.drift`
    batch: tuple[float, ...]


class DriftFacts(Record):
    """Whether the images were like the calibration images."""

    p_value: float = Field(ge=0, le=1)
    drifted: bool
    moved: str  # the statistic that moved most
    effect: float = Field(ge=0, le=1)  # probability that an image lies above a calibration image in it
    images: int | None = None  # that were looked at; None in an older run
    statistics: tuple[MovedFacts, ...] = ()  # none of an older run
    flagged_good: float | None = None  # share of good images above the threshold, where far more than asked are


class AgainstFacts(Record):
    """What the images are judged against."""

    used: str = "calibration"
    why: str = ""
    flagged: dict[str, int] = Field(default_factory=dict)  # by each verdict that there is


class Counts(Record):
    """Files by what became of them."""

    files: int | None = None
    ok: int | None = None
    failed: int | None = None
    flagged: int | None = None


class LeftOutFacts(Record):
    """Files of one suffix that were left out for one reason."""

    why: str
    suffix: str | None = None
    files: int = 0
    example: str = ""


class Run(Record):
    """run.json. Every field has a default, since a run may have been killed early."""

    verb: str = "score"
    folder: str | None = None
    command: str | None = None
    model: ModelFacts = ModelFacts()
    calibration: CalibrationFacts | None = None
    heat: HeatFacts | None = None
    drift: DriftFacts | None = None
    against: AgainstFacts | None = None
    warnings: tuple[str, ...] = ()
    counts: Counts = Counts()
    left_out: tuple[LeftOutFacts, ...] = ()
    timings: dict[str, float | None] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    started: str | None = None
    finished: str | None = None
    history: str | None = None  # where the page of all runs is

    @field_validator("history")
    @classmethod
    def _is_a_page_beside_the_folder(cls, address: str | None) -> str | None:
        """Whatever else it names is no link of ours."""
        return address if address and re.fullmatch(r"\.\./[A-Za-z0-9._~%-]+\.html", address) else None


class Defect(Record):
    """The figures of one kind of defect, against all good images."""

    n: int = 0
    image_auroc: float | None = None
    image_auroc_interval: tuple[float, float] | None = None
    image_ap: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None
    tpr_at_threshold: float | None = None


class Evaluation(Defect):
    """evaluation.json: the figures of merit of a run over labelled images. What was not measured is None."""

    fpr_at_threshold: float | None = None
    fpr_interval: tuple[float, float] | None = None
    n_good: int = 0
    n_bad: int = 0
    threshold: float | None = None
    false_alarms: float | None = None
    calibration: RateClaim | None = None
    roc: tuple[tuple[float, float], ...] = ()
    defects: dict[str, Defect] = Field(default_factory=dict)


class Near(Record):
    """A good image that one of the worst is close to."""

    name: str
    distance: float
    thumbnail: bytes


class Picture(Record):
    """One of the worst images: a thumbnail and its heat map, of the same size."""

    path: str
    score: float | None = None
    thumbnail: bytes
    heatmap: bytes | None = None
    restored: bytes | None = None  # where the image was mended; then the heat map is of its error bars
    sampled: tuple[bytes, ...] | None = None
    output: str | None = None
    disagreement: float | None = None
    mean_scale: float | None = None
    psnr: float | None = None
    input_psnr: float | None = None
    input_noise: float | None = None
    output_noise: float | None = None
    dice: float | None = None
    label: str | None = None  # the likeliest class, where the model tells classes
    label_probability: float | None = None
    outlines: str | None = None  # of the abnormal regions, in pixels of the thumbnail
    neighbours: tuple[Near, ...] | None = None
    local_p_value: float | None = None
    regions: int | None = None
    regions_percent: float | None = None
    largest_width: int | None = None
    largest_height: int | None = None
    largest_x: float | None = None
    largest_y: float | None = None
    expert: str | None = None  # that the score owes most to
    expert_score: float | None = None  # that expert's own
    place: str | None = None  # of the highest region, in words


class ShareFacts(Record):
    """A share of images, estimated from an audit."""

    value: float | None = None
    low: float
    high: float


class ReviewFacts(Record):
    """What people have answered about a run."""

    queues: dict[str, dict[str, int]]  # answers by queue and verdict
    alike: int = 0  # pairs of answers about one image that say the same
    pairs: int = 0  # all of these pairs
    recall: ShareFacts | None = None
    precision: ShareFacts | None = None
    width: float = 0.2  # of the interval of recall that `needed` is for
    needed: int | None = None  # further answers until the interval is as narrow
    at: str | None = None  # the last answer


RecordT = TypeVar("RecordT", bound=Record)


def read_record(path: Path, kind: type[RecordT]) -> RecordT | None:
    """Read one JSON file of an output folder.

    Returns:
        The record; None when there is no such file.

    Raises:
        FolderError: the file is there but is not what its name says; the message names the first field that is wrong.
    """
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise FolderError(
            f"{path} does not read as {kind.__name__.lower()} facts: {where}: {first['msg']}. "
            "Run the command that wrote it again, or move the file away to have a report without it."
        ) from error
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{path} cannot be read ({error}). Run the command that wrote it again, or move the file away to have a "
            "report without it."
        ) from error


def read_gallery(path: Path) -> tuple[Picture, ...] | None:
    """Read the pictures of the worst images, worst first; None when there is no such file.

    Raises:
        FolderError: the file is there but cannot be read.
    """
    if not path.is_file():
        return None
    try:
        with open_parquet(path) as file:
            rows = file.read().to_pylist()
        return tuple(Picture.model_validate(row) for row in rows)
    except (OSError, ValueError) as error:  # pyarrow's and pydantic's errors are ValueErrors
        raise FolderError(
            f"{path} cannot be read ({error}). Move it away to have a report without pictures, or start the run again."
        ) from error
