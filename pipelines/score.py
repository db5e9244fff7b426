"""The batch job: score every image under a folder and write the anomaly report. Read this file first.

    find images -> leave out what is done -> shards -> decode -> run the model -> heat maps -> rows -> report

Nothing here knows torch: the bound is computed inside the exported graph.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.abnormal_regions import draw_outlines, find_regions, local_level, svg_path
from pipelines.anomaly.drift import Drift, image_facts
from pipelines.anomaly.heatmap import HeatScale, colourise, overlay
from pipelines.anomaly.strangers import Strangers
from pipelines.anomaly.verdicts import OF_VERDICTS, Verdicts, check_rule, settled, settled_by
from pipelines.base.concurrency import in_order
from pipelines.base.files import map_name, write_atomically
from pipelines.base.progress import progress
from pipelines.batch.engines import Engine, expect_local, open_engine
from pipelines.batch.folder_run import FolderRun
from pipelines.batch.output_folder import OutputFolder, check_output
from pipelines.batch.results_files import COUNTED, open_results
from pipelines.batch.rows import empty_row, failed_row, forget_regions, note_of
from pipelines.batch.run_json import describe, work_key
from pipelines.batch.schema import Row
from pipelines.errors import CalibrationError
from pipelines.images import Decoded, Failed, ImageFile, list_images
from pipelines.images.drawing import LONGEST, png, thumbnail
from pipelines.jobfile.tables import AlarmTable
from pipelines.models.gallery import Gallery
from pipelines.models.inputs import batches, bytes_ahead, decode_for, in_halves, weight_of
from pipelines.models.model_file import ModelFile
from pipelines.models.session import SCORES, Session
from pipelines.registry.resolve import find_model
from pipelines.settings import settings

log = logging.getLogger(__name__)

Values = dict[str, NDArray[Any]]
_Scored = tuple[Sequence[Decoded], Values] | Failed
Observer = Callable[[Row, NDArray[Any]], None]  # a row and its anomaly map (H, W)


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """What a finished job has to say."""

    out: Path
    report: Path
    files: int
    ok: int
    failed: int
    flagged: int
    false_alarms: float | None
    threshold: float | None
    images_per_second: float | None
    rule: str | None = None  # where the threshold comes from when it is not the false-alarm rate alone
    drift: Drift | None = None  # None: not looked for, or too few images to tell
    by_group: int = 0  # images judged by a threshold of their own group
    unpromised: int = 0  # images judged without a promise: the model was not calibrated on their sub-folders
    alarms: tuple[str, ...] = ()  # what a schedule's rule finds alarming, a sentence for each


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
) -> ScoreSummary:
    """Score every image under a folder and write the anomaly report.

    A file that cannot be decoded becomes a row of the report, never a crash. A job that was killed is started again
    with the same call and does only what is missing.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to a scoring model, such as `tiles@champion` or a path, or what it resolved to.
        out: Output folder: new, or of an earlier run.
        false_alarms: Share of good images that may be flagged; default: the model's, at least 1/(n+1).
        budget: Flag at most so many images, the worst of those that would be flagged.
        false_discoveries: Instead of `false_alarms`: share of the flagged images that may be good.
        groups: Judge each sub-folder by the calibration images of the sub-folder of that name, where the model was
            calibrated on enough of them to promise the rate for it; those with fewer together by theirs. Sub-folders
            that the model was not calibrated on are judged by all calibration images, without a promise: all of them,
            where its calibration images lay in one folder.
        group_level: Which sub-folder of a path is its group; 0 is the first below `folder`.
        calibration: Another calibration file than the one beside the model.
        all_maps: Write a heat map of every image, not of the flagged ones alone.
        fresh: Forget what earlier runs did: a file that was replaced by one of the same size and time counts as done.
        observer: Called with every newly scored row and its anomaly map, in this process: of the local engine only.
        engine: Where the work is done: "local", or "ray" for every machine of a Ray cluster.
        drift_below: Only images of these sub-folders tell of drift, where others are known to be abnormal.

    Returns:
        Counts, and where the report is.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole; the message says what to do.
    """
    if observer is not None:
        expect_local(engine, "an observer")
    with open_engine(engine) as run_all, open_scoring(
        folder, model, out, false_alarms=false_alarms, budget=budget, false_discoveries=false_discoveries,
        groups=groups, group_level=group_level, calibration=calibration, all_maps=all_maps, fresh=fresh,
        observer=observer, drift_below=drift_below,
    ) as scoring:  # fmt: skip
        shards = scoring.shards()
        with progress(log, "score", len(scoring.files), "images", len(scoring.files) - scoring.left) as advance:
            run_all(scoring, shards, advance)
        return scoring.finish()


@contextlib.contextmanager
def open_scoring(
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
    alarm: AlarmTable | None = None,
    series: bool = False,
    drift_below: tuple[str, ...] = (),
) -> Iterator[Scoring]:
    """The same job in steps, for callers that schedule shards themselves: `shards()`, `run(shard)`, `finish()`.

    Args as for `score_folder`, and `alarm`: when the run raises an alarm; `series`: `out` is one of many in one folder,
    and its report leads to the page over time; `drift_below`: see `score_folder`.

    Raises:
        KintsugiError: As for `score_folder`.
    """
    folder, out = Path(folder), Path(out)
    # What is wrong with the call is told before a model is looked for, which may import MLflow and ask a server.
    check_rule(false_alarms, budget=budget, false_discoveries=false_discoveries, groups=groups)
    check_output(out, folder)
    if calibration is not None and not calibration.is_file():
        msg = f"there is no calibration file {calibration}: give the calibration.json of the model"
        raise CalibrationError(msg)
    found = list_images(folder)
    found.left_out.log()
    file = model if isinstance(model, ModelFile) else find_model(model)
    verdicts = Verdicts.of(
        file.calibration(calibration), false_alarms, budget=budget, false_discoveries=false_discoveries,
        groups=groups, group_level=group_level,
    )  # fmt: skip
    session = Session(file, device=settings().device, threads=1, calls=settings().workers)
    gallery = Gallery.of(file) if "embedding" in session.metadata.outputs else None
    output = OutputFolder(out, work_key=work_key(file, verdicts.calibration), source=folder)
    with output.held(fresh=fresh):
        scoring = Scoring(
            folder=folder, files=found.files, unreadable=found.unreadable, left_out=found.left_out,
            model=file, session=session,
            verdicts=verdicts, output=output, gallery=gallery, observer=observer, calibration_file=calibration,
            all_maps=all_maps, alarm=alarm, series=series,
            drift_below=drift_below,
        )  # fmt: skip
        scoring.tell_groups()
        output.write_json("run.json", describe(scoring, dict.fromkeys(COUNTED, 0), finished=False))
        yield scoring


@dataclass(slots=True, kw_only=True)
class Scoring(FolderRun):
    """An open job that scores."""

    session: Session
    verdicts: Verdicts
    gallery: Gallery | None = None  # good images to compare with
    observer: Observer | None = None
    calibration_file: Path | None = None  # where it is not the one beside the model
    all_maps: bool = False
    drift_below: tuple[str, ...] = ()  # only images of these sub-folders tell of drift; default: all
    drift: Drift | None = None
    strangers: Strangers | None = None  # images that score above all calibration images, once all are known
    unpromised: int = 0  # images that are judged without a promise
    batch_size: int = field(init=False)
    due: Verdicts = field(init=False)  # which images are to have a heat map, by the rows so far

    def __post_init__(self) -> None:
        """Begin with what the session recommends."""
        self.batch_size, self.due = self.session.batch_size, self.verdicts

    @property
    def provider(self) -> str:
        """Which part of ONNX Runtime runs the model in this process."""
        return self.session.provider

    def tell_groups(self) -> None:
        """Say once which sub-folders have a threshold of their own, and which are judged together, and why."""
        if self.verdicts.groups is not None:
            for line in self.verdicts.groups.explain(file.relative for file in self.files):
                log.info("groups %s", line)

    def holds(self, row: Row) -> bool:
        """Whether a scored image has the heat map that is due."""
        told = self.session.metadata.tells_places
        mapped = told and (self.all_maps or self.due.flags(row["path"], row["score"]))
        return not mapped or self.output.map_path(row["path"]).is_file()

    def look_back(self) -> None:
        """Settle the rule for the rows so far: an image that it did not flag in the end has no map, and needs none."""
        self.due = settled_by(self.verdicts, self.output.store.tables(self.files, ("status", "score")))

    def rows_of(self, files: Sequence[ImageFile]) -> Generator[list[Row]]:
        """The rows of some files, a batch at a time."""
        workers = settings().workers
        images = decode_for(files, self.session.metadata, self.stages)
        parts = batches(images, lambda: self.batch_size)
        limit = bytes_ahead()
        scored = in_order(self.scored, parts, workers=self.session.calls, weight=weight_of, limit=limit)
        for drawn in in_order(self.drawn, scored, workers=workers, weight=_weight, limit=limit):
            for row, anomaly_map in drawn:
                if self.observer and row["status"] == "ok":
                    self.observer(row, anomaly_map)
            yield [row for row, _ in drawn]

    def finish(self) -> ScoreSummary:
        """Merge all rows, give verdicts, write results and the report."""
        from pipelines.report import write_report  # its imports take long: the first image need not wait

        self._draw_missing()
        self.session.close()  # rows and the report have the room now
        columns = (*OF_VERDICTS, "path") if self.drift_below else OF_VERDICTS
        tables = self.output.store.tables(self.files, columns)
        self.verdicts, self.drift = settled(self.verdicts, tables, self.drift_below)
        named = {"model": self.model.name or self.session.metadata.name, "version": self.model.version}
        mapped = self.output.names()
        if self.verdicts.calibration is not None:
            self.strangers = Strangers(self.verdicts.calibration, self.drift_below)
        self.output.forget_evaluation()
        with open_results(self.output.out) as results:
            for rows in self.merged():
                self.verdicts.fill(rows)
                if self.strangers is not None:
                    self.strangers.add(rows)
                forget_regions(rows)
                for row in rows:
                    row |= named
                    if row["is_anomaly"] or (self.all_maps and row["status"] == "ok"):
                        mapped.add(map_name(row["path"], folds=self.output.folds))
                results.add(rows)
        self.output.write_gallery(results.worst)
        self.output.tidy(mapped)
        counts = {name: results.counts[name] for name in COUNTED}
        self.unpromised = results.counts["unpromised"]
        run = describe(self, counts, finished=True)
        self.output.write_json("run.json", run)
        report = write_report(self.output.out)
        for warning in run["warnings"]:
            log.warning("%s", warning)
        return ScoreSummary(
            out=self.output.out,
            report=report,
            false_alarms=self.verdicts.false_alarms,
            threshold=self.verdicts.threshold,
            rule=self.verdicts.rule,
            drift=self.drift,
            by_group=results.counts["grouped"],
            unpromised=self.unpromised,
            alarms=tuple(run["alarms"]),
            images_per_second=run["timings"]["images_per_second"],
            files=self.total,
            **counts,
        )

    def _draw_missing(self) -> None:
        """Do images again that the rule flags now and did not flag in an earlier run, which deleted their heat maps.

        New images can lower a threshold of false discoveries. An image that fails now, and did not before, makes room
        in a budget. Those that were drawn in this run have their maps.
        """
        if not self.verdicts.moves:
            return
        self.look_back()
        for shard in self.cut(self.output.store.without(self.files, self.holds)):
            self.run(shard)

    def scored(self, batch: Sequence[Decoded] | Failed) -> list[_Scored]:
        """A batch through the model; what does not fit into memory goes through in halves, and so do those after it."""
        if isinstance(batch, Failed):
            return [batch]
        outputs = SCORES if self.gallery is None else (*SCORES, "embedding")
        if self.session.metadata.classes:
            outputs = (*outputs, "label_probability")

        def run(some: Sequence[Decoded]) -> Values:
            with self.stages.timed("run"):
                return self.session.run_images(some, outputs)

        def smaller(count: int) -> None:
            self.batch_size = max(1, min(self.batch_size, count // 2))  # of the batches to come

        return in_halves(batch, run, "scored", smaller)

    def drawn(self, scored: Sequence[_Scored]) -> list[tuple[Row, NDArray[Any]]]:
        """Rows and maps."""
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
            return row | {"status": "failed", "error": "the model gives no finite score for this image"}
        bits_per_dim = -scalars["elbo"] / (self.session.metadata.dims * np.log(2))
        scored = row | scalars | {"status": "ok", "bits_per_dim": float(bits_per_dim)} | image_facts(image.pixels)
        if classes := self.session.metadata.classes:
            chances = values["label_probability"][index]
            best = int(chances.argmax())
            scored |= {"label": classes[best], "label_probability": float(chances[best])}
        try:
            self._draw(scored, image, {name: array[index] for name, array in values.items()})
        except MemoryError:
            return row | {"status": "failed", "error": "its heat map does not fit into memory"}
        return scored

    def _draw(self, row: Row, image: Decoded, values: Values) -> None:
        """Regions and heat map of a flagged image; thumbnail and neighbours of what may be among the worst of all."""
        score, anomaly_map = row["score"], values["anomaly_map"]
        flagged, worst = self.verdicts.flags(row["path"], score), self.worst.takes(score)
        if not (flagged or worst or self.all_maps):
            return
        calibration = self.verdicts.calibration
        told = self.session.metadata.tells_places
        regions = find_regions(anomaly_map, local_level(calibration)) if told else None
        if regions is not None:
            row |= regions.columns()
        outlines = regions.outlines if regions is not None else ()
        if told and calibration is not None and calibration.places is not None:
            row["local_p_value"] = float(calibration.places.p_values(np.fmax.reduce(anomaly_map, axis=None)))
        heat = colourise(anomaly_map, HeatScale.of(calibration, anomaly_map))
        if told and (flagged or self.all_maps):
            path = self.output.map_path(row["path"])
            picture = png(draw_outlines(overlay(image.pixels, heat), outlines))
            write_atomically(path, lambda temporary: temporary.write_bytes(picture))
        if worst:
            row["thumbnail"] = thumbnail(image.pixels)
            row["heatmap"] = png(heat, longest=LONGEST) if told else None
            row["outlines"] = svg_path(outlines, min(1.0, LONGEST / max(image.pixels.shape[:2])))
            if self.gallery is not None:
                row["neighbours"] = [near.row() for near in self.gallery.closest(values["embedding"])]


def _weight(scored: Sequence[_Scored]) -> int:
    """Bytes of the pixels in a batch that was scored."""
    return sum(weight_of(part if isinstance(part, Failed) else part[0]) for part in scored)
