"""The batch job: score every image under a folder and write the anomaly report. Read this file first.

    find images -> skip finished ones -> shards -> decode -> run the model -> heat maps -> rows -> report

This module does not need torch: the exported graph computes the bound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.abnormal_regions import describe_scale
from pipelines.anomaly.against import COLUMNS_NEEDED, Against, Judgement, Reference, judge_run
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.contributions import find_foremost
from pipelines.anomaly.drift import Drift
from pipelines.anomaly.findings import Findings, describe_drawing
from pipelines.anomaly.image_facts import image_facts
from pipelines.anomaly.rate_claim import RateClaim
from pipelines.anomaly.strangers import Strangers
from pipelines.anomaly.verdicts import Verdicts
from pipelines.base.concurrency import in_order
from pipelines.base.files import map_name, write_atomically
from pipelines.batch.cautions import warn_of
from pipelines.batch.engines import Engine, expect_local, run_job
from pipelines.batch.folder_run import FolderRun
from pipelines.batch.options import Observer, ScoreOptions
from pipelines.batch.output_folder import OutputFolder, check_output
from pipelines.batch.results_files import COUNTED
from pipelines.batch.rows import empty_row, failed_row, forget_regions, note_of
from pipelines.batch.run_json import describe_run
from pipelines.batch.schema import Row
from pipelines.images import Decoded, Failed, ImageFile, list_images
from pipelines.models.gallery import Gallery
from pipelines.models.inputs import batches, bytes_ahead, decode_for, in_halves, weight_of
from pipelines.models.model_file import CALIBRATION_FILE, GALLERY_FILE, ModelFile, sha256_of
from pipelines.models.session import SCORES, Session
from pipelines.registry.resolve import find_model
from pipelines.settings import settings

log = logging.getLogger(__name__)

Values = dict[str, NDArray[Any]]
_Scored = tuple[Sequence[Decoded], Values] | Failed


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """Counts of a finished run, and the path of its report."""

    out: Path  # the output folder
    report: Path  # path of report.html
    files: int  # number of image files that were found
    ok: int  # number of files with a result
    failed: int  # number of files without a result
    flagged: int  # number of images that look abnormal
    false_alarms: float | None  # the rate asked for; None without calibration or under another rule
    threshold: float | None  # images with a higher score are flagged
    images_per_second: float | None  # speed; None if no work was left
    against: Reference = "calibration"  # the images that scores were compared with: `calibration` or `folder`
    by_calibration: int | None = None  # number of images that the calibration threshold flags
    rule: str | None = None  # source of the threshold, if it is not the false-alarm rate alone
    drift: Drift | None = None  # result of the test for drift; None if it did not run or had too few images
    by_group: int = 0  # number of images judged by the threshold of their own group
    unpromised: int = 0  # number of images in sub-folders without calibration images: the rate does not hold for them
    claim: RateClaim = field(default_factory=RateClaim)  # basis of the false-alarm rate
    alarms: tuple[str, ...] = ()  # one sentence for each alarm of the schedule's rules


def score_folder(
    folder: Path | str,
    model: str | Path | ModelFile,
    out: Path | str,
    *,
    false_alarms: float | None = None,
    budget: int | None = None,
    false_discoveries: float | None = None,
    groups: bool = False,
    group_level: int = 0,
    calibration: Path | None = None,
    all_maps: bool = False,
    fresh: bool = False,
    observer: Observer | None = None,
    engine: Engine = "local",
    drift_below: tuple[str, ...] = (),
    against: Against = "auto",
) -> ScoreSummary:
    """Score every image under a folder and write the anomaly report.

    A file that cannot be decoded becomes a row of the report and never stops the job. After an interruption, the same
    call does only the missing work.

    Args:
        folder: Images, in sub-folders or not.
        model: An anomaly model: a reference such as `tiles@champion`, a path, or a `ModelFile`.
        out: Output folder: a new one, or that of an earlier run.
        false_alarms: Share of good images that may be flagged. The default is the model's own rate, at least 1/(n+1)
            for n calibration images.
        budget: Flag at most this number of images: those with the highest scores above the threshold.
        false_discoveries: Share of the flagged images that may be good. Replaces `false_alarms`.
        groups: Judge each sub-folder by the calibration images of the sub-folder with the same name, if there are
            enough for the rate. Sub-folders with fewer are judged together, by their calibration images. Sub-folders
            without calibration images are judged by all calibration images, and the rate does not hold for them. This
            is the case for every sub-folder if all calibration images lay in one folder.
        group_level: Level of the sub-folder that is the group; 0 is the first level below `folder`.
        calibration: Calibration file to use instead of the one beside the model.
        all_maps: Write a heat map of every image, not only of the flagged ones.
        fresh: Discard the results of earlier runs. Otherwise a replaced file of the same size and time counts as done.
        observer: Function to call with each newly scored row and its anomaly map (local engine only).
        engine: Where the work is done: "local", or "ray" for all machines of a Ray cluster.
        drift_below: Test only images of these sub-folders for drift. Use it if others are known to be abnormal.
        against: What each score is compared with. "calibration": the calibration images; the false-alarm rate holds for
            images like them. "folder": most images of this folder. "auto": the folder, if its good images score
            differently from the calibration images. The results have both verdicts.

    Returns:
        Counts, and the path of the report.

    Raises:
        KintsugiError: Wrong usage or bad input; the message has the next step.
    """
    if observer is not None:
        expect_local(engine, "an observer")
    options = ScoreOptions(
        false_alarms=false_alarms, budget=budget, false_discoveries=false_discoveries, groups=groups,
        group_level=group_level, calibration=calibration, all_maps=all_maps, fresh=fresh, observer=observer,
        drift_below=drift_below, against=against,
    )  # fmt: skip
    # For each shard of files: FolderRun.run, which takes rows from Scoring.make_rows; then Scoring.finish.
    summary: ScoreSummary = run_job(open_scoring(folder, model, out, options), engine)
    return summary


@contextlib.contextmanager
def open_scoring(
    folder: Path | str, model: str | Path | ModelFile, out: Path | str, options: ScoreOptions
) -> Iterator[Scoring]:
    """Open the job for callers that schedule the shards themselves: `shards()`, `run(shard)`, `finish()`.

    Raises:
        KintsugiError: See `score_folder`.
    """
    folder, out = Path(folder), Path(out)
    check_output(out, folder)  # before the model is resolved, which may import MLflow and ask a server
    found = list_images(folder)
    found.left_out.log()
    file = model if isinstance(model, ModelFile) else find_model(model)
    verdicts = Verdicts.of(
        file.calibration(options.calibration), options.false_alarms, budget=options.budget,
        false_discoveries=options.false_discoveries, groups=options.groups, group_level=options.group_level,
    )  # fmt: skip
    session = Session(file, device=settings().device, threads=1, calls=settings().workers)
    gallery = Gallery.of(file) if "embedding" in session.metadata.outputs else None
    output = OutputFolder(out, work_key=work_key(file, verdicts.calibration), source=folder)
    with output.hold(fresh=options.fresh):
        scoring = Scoring(
            folder=folder, files=found.files, unreadable=found.unreadable, left_out=found.left_out, model=file,
            session=session, output=output, options=options, verdicts=verdicts, gallery=gallery,
        )  # fmt: skip
        scoring.log_groups()
        scoring.begin()
        yield scoring


@dataclass(slots=True, kw_only=True)
class Scoring(FolderRun):
    """An open scoring job."""

    verb = "score"
    counted = COUNTED

    session: Session
    options: ScoreOptions
    verdicts: Verdicts
    gallery: Gallery | None = None  # good images to compare with
    judgement: Judgement | None = None  # set when all scores are known
    strangers: Strangers | None = None  # images that score above all calibration images; set when all scores are known
    unpromised: int = 0  # images for which the rate does not hold
    flagged: dict[str, int] = field(default_factory=dict)  # number of flagged images, by verdict
    batch_size: int = field(init=False)
    rule: Verdicts = field(init=False)  # verdicts by calibration, also if the run judges by the folder
    due: Verdicts = field(init=False)  # the images that need a heat map, by the rows so far

    def __post_init__(self) -> None:
        """Start with the batch size that the session recommends."""
        self.batch_size, self.rule, self.due = self.session.batch_size, self.verdicts, self.verdicts

    @property
    def drift(self) -> Drift | None:
        """Result of the test for drift; None before all scores are known, or if there are too few."""
        return None if self.judgement is None else self.judgement.drift

    def log_groups(self) -> None:
        """Log once which sub-folders have their own threshold, which are judged together, and why."""
        if self.verdicts.groups is not None:
            for line in self.verdicts.groups.explain(file.relative for file in self.files):
                log.info("groups %s", line)

    def is_done(self, row: Row) -> bool:
        """Return whether a scored image has its heat map, if it needs one."""
        has_places = self.session.metadata.tells_places
        is_due = has_places and (self.options.all_maps or self.due.is_flagged(row["path"], row["score"]))
        return not is_due or self.output.map_path(row["path"]).is_file()

    def look_back(self) -> None:
        """Judge the rows so far: an image that is not flagged in the end needs no map."""
        self.due = self._judge().run

    def _judge(self) -> Judgement:
        options, store = self.options, self.output.store
        return judge_run(
            self.rule, lambda: store.tables(self.files, COLUMNS_NEEDED), drift_below=options.drift_below,
            against=options.against, trained_on=self.model.trained_on,
        )  # fmt: skip

    def make_rows(self, files: Sequence[ImageFile]) -> Generator[list[Row]]:
        """Yield the rows of some files in batches: decode, run the model, draw."""
        workers, limit, observer = settings().workers, bytes_ahead(), self.options.observer
        images = decode_for(files, self.session.metadata, self.stages)
        parts = batches(images, lambda: self.batch_size)
        scored = in_order(self.score_batch, parts, workers=self.session.calls, weight=weight_of, limit=limit)
        for drawn in in_order(self.draw_batch, scored, workers=workers, weight=_weight, limit=limit):
            for row, anomaly_map in drawn:
                if observer and row["status"] == "ok":
                    observer(row, anomaly_map)
            yield [row for row, _ in drawn]

    def score_batch(self, batch: Sequence[Decoded] | Failed) -> list[_Scored]:
        """Run the model. If a batch does not fit into memory, run it in halves, and make later batches smaller too."""
        if isinstance(batch, Failed):
            return [batch]
        outputs = SCORES if self.gallery is None else (*SCORES, "embedding")
        if self.session.metadata.classes:
            outputs = (*outputs, "label_probability")
        if self.session.metadata.tells_experts:
            outputs = (*outputs, "expert_score")

        def run(some: Sequence[Decoded]) -> Values:
            with self.stages.timed("run"):
                return self.session.run_images(some, outputs)

        def smaller(count: int) -> None:
            self.batch_size = max(1, min(self.batch_size, count // 2))  # for later batches

        return in_halves(batch, run, "scored", smaller)

    def draw_batch(self, scored: Sequence[_Scored]) -> list[tuple[Row, NDArray[Any]]]:
        """Make rows with their maps, and draw the images that are flagged or among the worst."""
        drawn: list[tuple[Row, NDArray[Any]]] = []
        with self.stages.timed("write"):
            for part in scored:
                if isinstance(part, Failed):
                    drawn.append((failed_row(part), np.empty(0)))
                    continue
                batch, values = part
                maps = values["anomaly_map"]
                drawn += [(self._row(image, values, at), maps[at]) for at, image in enumerate(batch)]
        return drawn

    def _row(self, image: Decoded, values: Values, index: int) -> Row:
        scalars = {name: float(values[name][index]) for name in ("score", "elbo", "rate", "distortion")}
        row = empty_row(image.file) | {
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "bit_depth": image.bit_depth,
            "note": note_of(image, self.session.metadata),
        }
        if not all(np.isfinite(value) for value in scalars.values()):
            return row | {"status": "failed", "error": "the model returned an infinite or NaN score for this image"}
        bits_per_dim = -scalars["elbo"] / (self.session.metadata.dims * np.log(2))
        scored = row | scalars | {"status": "ok", "bits_per_dim": float(bits_per_dim)} | image_facts(image.pixels)
        if classes := self.session.metadata.classes:
            chances = values["label_probability"][index]
            best = int(chances.argmax())
            scored |= {"label": classes[best], "label_probability": float(chances[best])}
        if self.session.metadata.tells_experts:
            scored |= find_foremost(values["expert_score"][index], self.session.metadata.experts)
        try:
            self._draw(scored, image, {name: array[index] for name, array in values.items()})
        except MemoryError:
            return row | {"status": "failed", "error": "its heat map does not fit into memory"}
        return scored

    def _draw(self, row: Row, image: Decoded, values: Values) -> None:
        """Add the regions of a flagged image and write its heat map; add pictures if it may be among the worst."""
        calibration, has_places = self.verdicts.calibration, self.session.metadata.tells_places
        mapped = self.options.all_maps or any(
            verdicts.is_flagged(row["path"], row["score"]) for verdicts in (self.rule, self.due)
        )
        worst = self.worst.enter(row["score"])
        if not (mapped or worst):
            return
        findings = Findings.of(values["anomaly_map"], calibration) if has_places else Findings()
        row |= findings.columns
        if has_places and mapped:
            picture = findings.draw_heat_map(image.pixels)
            write_atomically(self.output.map_path(row["path"]), lambda temporary: temporary.write_bytes(picture))
        if worst:
            row |= findings.draw_pictures(image.pixels)
            if self.gallery is not None:
                row["neighbours"] = [near.row() for near in self.gallery.closest(values["embedding"])]

    def finish(self) -> ScoreSummary:
        """Merge all rows, judge them, and write the results and the report."""
        judgement, due = self._settle(), self.output.new_names()

        def judge(rows: list[Row]) -> None:
            judgement.fill(rows)
            forget_regions(rows)
            if self.strangers is not None:
                self.strangers.add(rows)
            for row in rows:
                if row["is_anomaly"] or (self.options.all_maps and row["status"] == "ok"):
                    due.add(map_name(row["path"], folds=self.output.folds))

        results = self.write_results(judge)
        self.output.tidy(due)
        self.unpromised = results.counts["unpromised"]
        self.flagged = judgement.count(results.counts)
        run, report = self.write_report(results)
        return ScoreSummary(
            out=self.output.out,
            report=report,
            false_alarms=self.verdicts.false_alarms,
            threshold=self.verdicts.threshold,
            against=judgement.against,
            by_calibration=self.flagged.get("calibration"),
            rule=self.verdicts.rule,
            drift=judgement.drift,
            by_group=results.counts["grouped"],
            unpromised=self.unpromised,
            claim=RateClaim() if self.verdicts.calibration is None else self.verdicts.calibration.claim,
            alarms=tuple(run["alarms"]),
            images_per_second=run["timings"]["images_per_second"],
            files=self.total,
            **{name: results.counts[name] for name in COUNTED},
        )

    def _settle(self) -> Judgement:
        """Judge all rows, and draw the images that are newly flagged.

        New images can move a threshold that depends on all scores. An image that fails now frees a place in a budget.
        """
        judgement = self._judge()
        self.due = judgement.run
        # With a fixed threshold of calibration, all flagged images are already drawn: the rows need no search.
        depends_on_all = judgement.run.may_move or judgement.against == "folder"
        if depends_on_all and (shards := self.cut(self.output.store.find_undone(self.files, self.is_done))):
            log.info("drawing images that are flagged now and were not before")
            for shard in shards:
                self.run(shard)
            judgement = self._judge()
        self.judgement, self.verdicts = judgement, judgement.run
        if self.rule.calibration is not None:
            self.strangers = Strangers(self.rule.calibration, self.options.drift_below)
        return judgement

    def describe(self, counts: Mapping[str, int], *, finished: bool) -> dict[str, Any]:
        """Describe the run for run.json: everything except the rows."""
        calibration = self.options.calibration
        options = [] if calibration is None else ["--calibration", str(calibration.resolve())]
        for name, number in self.verdicts.options.items():
            options += [f"--{name.replace('_', '-')}", repr(number)]
        options += ["--groups"] * (self.verdicts.groups is not None) + ["--all-maps"] * self.options.all_maps
        options += ["--against", self.options.against] * (self.options.against != "auto")
        told = list(warn_of(
            self.verdicts, self.judgement, scored=counts["ok"], ran_on=self.ran_on or {self.session.provider},
            strangers=self.strangers, missing=self.model.folder / CALIBRATION_FILE,
            paths=(file.relative for file in self.files),
        ))  # fmt: skip
        return describe_run(self, counts, options=options, warnings=told, finished=finished, drift=self.drift) | {
            "calibration": self.verdicts.describe((file.relative for file in self.files), self.unpromised),
            "heat": describe_scale(self.verdicts.calibration),
            "drift": self.drift and asdict(self.drift),
            "against": self.judgement and self.judgement.describe() | {"flagged": self.flagged},
        }


def work_key(model: ModelFile, calibration: Calibration | None) -> str:
    """Return a digest of everything that rows and maps depend on: the model, its gallery, drawings and measures."""
    gallery = model.folder / GALLERY_FILE
    made_of = [model.sha256, sha256_of(gallery) if gallery.is_file() else None, *describe_drawing(calibration)]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _weight(scored: Sequence[_Scored]) -> int:
    """Return the bytes of the pixels in a scored batch."""
    return sum(weight_of(part if isinstance(part, Failed) else part[0]) for part in scored)
