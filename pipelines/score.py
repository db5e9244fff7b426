"""The batch job: score every image under a folder and write the anomaly report. Read this file first.

    find images -> leave out what is done -> shards -> decode -> run the model -> heat maps -> rows -> report

Nothing here knows torch: the bound is computed inside the exported graph.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.account import describe, work_key
from pipelines.columns import Row
from pipelines.drift import STATISTICS, Drift, check_drift, image_facts
from pipelines.errors import CalibrationError
from pipelines.folder_run import FolderRun
from pipelines.heatmap import LONGEST, HeatScale, colourise, overlay, png, thumbnail
from pipelines.images import Decoded, Failed, ImageFile, list_images
from pipelines.inputs import batches, decode_for
from pipelines.modelfile import ModelFile
from pipelines.models import find_model
from pipelines.neighbours import Gallery
from pipelines.output import OutputFolder, check_output, write_atomically
from pipelines.progress import progress
from pipelines.regions import draw_outlines, find_regions, local_level, svg_path
from pipelines.report import write_report
from pipelines.rows import empty_row, failed_row, forget_regions, note_of
from pipelines.session import SCORES, Session
from pipelines.settings import settings
from pipelines.verdicts import Verdicts, check_rule, count, values_of

log = logging.getLogger(__name__)

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
    fresh: bool = False,
    observer: Observer | None = None,
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
            calibrated on enough of them to promise the rate for it; all others together by the remaining calibration
            images, or by all of them, without a promise, where these are too few.
        group_level: Which sub-folder of a path is its group; 0 is the first below `folder`.
        calibration: Another calibration file than the one beside the model.
        fresh: Forget the rows of earlier runs.
        observer: Called with every newly scored row and its anomaly map.

    Returns:
        Counts, and where the report is.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole; the message says what to do.
    """
    with open_scoring(
        folder, model, out, false_alarms=false_alarms, budget=budget, false_discoveries=false_discoveries,
        groups=groups, group_level=group_level, calibration=calibration, fresh=fresh, observer=observer,
    ) as scoring:  # fmt: skip
        shards = scoring.shards()
        with progress(log, "score", len(scoring.files), "images", len(scoring.files) - scoring.left) as advance:
            for shard in shards:
                scoring.run(shard, advance)
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
    fresh: bool = False,
    observer: Observer | None = None,
) -> Iterator[Scoring]:
    """The same job in steps, for callers that schedule shards themselves: `shards()`, `run(shard)`, `finish()`.

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
    file = model if isinstance(model, ModelFile) else find_model(model)
    verdicts = Verdicts.of(
        file.calibration(calibration), false_alarms, budget=budget, false_discoveries=false_discoveries,
        groups=groups, group_level=group_level,
    )  # fmt: skip
    session = Session(file, device=settings().device, threads=settings().workers)
    gallery = Gallery.of(file) if "embedding" in session.metadata.outputs else None
    output = OutputFolder(out, work_key=work_key(file, verdicts.calibration), source=folder)
    with output.held(fresh=fresh):
        scoring = Scoring(
            folder=folder, files=found.files, unreadable=found.unreadable, model=file, session=session,
            verdicts=verdicts, output=output, gallery=gallery, observer=observer, calibration_file=calibration,
        )  # fmt: skip
        scoring.tell_groups()
        output.write_json("run.json", describe(scoring, dict.fromkeys(("ok", "failed", "flagged"), 0), finished=False))
        yield scoring


@dataclass(slots=True, kw_only=True)
class Scoring(FolderRun):
    """An open job that scores."""

    session: Session
    verdicts: Verdicts
    gallery: Gallery | None = None  # good images to compare with
    observer: Observer | None = None
    calibration_file: Path | None = None  # where it is not the one beside the model
    drift: Drift | None = None

    def tell_groups(self) -> None:
        """Say once which sub-folders have a threshold of their own, which have none, and why."""
        if self.verdicts.groups is not None:
            for line in self.verdicts.groups.explain(file.relative for file in self.files):
                log.info("groups %s", line)

    def holds(self, row: Row) -> bool:
        """Whether a scored image has the heat map that is due."""
        return not self.verdicts.flags(row["path"], row["score"]) or self.output.map_path(row["path"]).is_file()

    def rows_of(self, files: Sequence[ImageFile]) -> Iterator[list[Row]]:
        """The rows of some files, a batch at a time."""
        images = decode_for(files, self.session.metadata)
        for batch in batches(self.timed_each(images), self.session.batch_size):
            yield [failed_row(batch)] if isinstance(batch, Failed) else self._score(batch)

    def finish(self) -> ScoreSummary:
        """Merge all rows, give verdicts, write results and the report."""
        rows = self.merged()
        self.verdicts = self.verdicts.settle(rows)
        self.verdicts.fill(rows)
        forget_regions(rows)
        calibration = self.verdicts.calibration
        if calibration is not None and calibration.statistics:
            self.drift = check_drift(calibration.statistics, values_of(rows, STATISTICS))
        for row in rows:
            row.update(model=self.model.name or self.session.metadata.name, version=self.model.version)
        self.output.forget_evaluation()
        self.output.write_results(rows)
        self.output.write_gallery(rows)
        self.output.tidy(rows)
        counts = count(rows)
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
            by_group=sum(row["group"] is not None for row in rows),
            images_per_second=run["timings"]["images_per_second"],
            files=self.total,
            **counts,
        )

    def _score(self, batch: Sequence[Decoded]) -> list[Row]:
        outputs = SCORES if self.gallery is None else (*SCORES, "embedding")
        with self.timed("run"):
            pixels, digests = np.stack([image.pixels for image in batch]), [image.sha256 for image in batch]
            values = self.session.run(pixels, digests, outputs)
        with self.timed("write"):
            return [self._row(image, values, index) for index, image in enumerate(batch)]

    def _row(self, image: Decoded, values: dict[str, NDArray[Any]], index: int) -> Row:
        scalars = {name: float(values[name][index]) for name in ("score", "elbo", "rate", "distortion")}
        row = empty_row(image.file) | {
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "bit_depth": image.bit_depth,
            "note": note_of(image, self.session.metadata.size),
        }
        if not all(np.isfinite(value) for value in scalars.values()):
            return row | {"status": "failed", "error": "the model gives no finite score for this image"}
        bits_per_dim = -scalars["elbo"] / (self.session.metadata.dims * np.log(2))
        row |= scalars | {"status": "ok", "bits_per_dim": float(bits_per_dim)} | image_facts(image.pixels)
        self._draw(row, image, {name: array[index] for name, array in values.items()})
        return row

    def _draw(self, row: Row, image: Decoded, values: dict[str, NDArray[Any]]) -> None:
        """Regions; heat map of a flagged image; thumbnails and neighbours of what may belong to the worst of all."""
        score, anomaly_map = row["score"], values["anomaly_map"]
        flagged = self.verdicts.flags(row["path"], score)
        calibration = self.verdicts.calibration
        told = self.session.metadata.tells_places
        regions = find_regions(anomaly_map, local_level(calibration)) if told else None
        if regions is not None:
            row |= regions.columns()
        outlines = regions.outlines if regions is not None else ()
        if told and calibration is not None and calibration.places is not None:
            row["local_p_value"] = float(calibration.places.p_values(np.fmax.reduce(anomaly_map, axis=None)))
        worst = self.among_worst(score)
        if self.observer:
            self.observer(row, anomaly_map)
        if not flagged and not worst:
            return
        heat = colourise(anomaly_map, HeatScale.of(calibration, anomaly_map))
        if flagged and told:
            path = self.output.map_path(row["path"])
            picture = png(draw_outlines(overlay(image.pixels, heat), outlines))
            write_atomically(path, lambda temporary: temporary.write_bytes(picture))
        if worst:
            row["thumbnail"] = thumbnail(image.pixels)
            row["heatmap"] = png(heat, longest=LONGEST) if told else None
            row["outlines"] = svg_path(outlines, min(1.0, LONGEST / max(image.pixels.shape[:2])))
            if self.gallery is not None:
                row["neighbours"] = [near.row() for near in self.gallery.closest(values["embedding"])]
