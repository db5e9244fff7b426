"""The batch job that mends: every image under a folder, restored, with an error bar, and a report.

    find images -> leave out what is done -> decode -> tiles through the model -> encode at the file's depth -> rows
    -> report

Nothing here knows torch: the network, its error bar and the halo that tiles need are in the model file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.account import describe_run
from pipelines.colour import colour, draw_colours, picture_of_colours, pictures_of_colours
from pipelines.columns import Row
from pipelines.errors import FolderError, ImageError
from pipelines.folder_run import FolderRun
from pipelines.images import Failed, Image, ImageFile, Opened, list_images, open_images, read_image
from pipelines.images.header import one_line
from pipelines.images.image import Samples
from pipelines.images.write import SUFFIXES, FileKind, encode_image
from pipelines.label import EXACT, draw, encode_labels, label
from pipelines.labels import LabelFolder, read_labels, stem_of
from pipelines.mend import DRAWING, Mended, mend, picture_of_labels, pictures_of
from pipelines.modelfile import ColorizationMetadata, ModelFile, RestorationMetadata, SegmentationMetadata
from pipelines.models import find_model
from pipelines.names import by_name, output_names
from pipelines.output import OutputFolder, check_output, outputs_of, write_atomically
from pipelines.progress import progress
from pipelines.quality import compare, compare_labels
from pipelines.rows import empty_row, failed_row
from pipelines.session import (
    AnyRestoring,
    ColorizingSession,
    RestoringSession,
    SegmentingSession,
    open_restoring_session,
)
from pipelines.settings import settings

log = logging.getLogger(__name__)
MOST_SAMPLES, SHOWN_SAMPLES = 64, 4


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """What a finished job has to say."""

    out: Path
    report: Path
    files: int
    ok: int
    failed: int
    images_per_second: float | None
    psnr: float | None = None  # mean, where there are clean images to compare with
    dice: float | None = None  # as well, where there are true labels
    done: str = "restored"  # or labelled, coloured


def restore_folder(
    folder: Path | str,
    model: str | Path | ModelFile,
    out: Path | str,
    *,
    kind: str = "png",
    reference: Path | None = None,
    samples: int = 0,
    fresh: bool = False,
) -> RestoreSummary:
    """Mend every image under a folder.

    Depth, transparency, orientation, colour profile and resolution of each file are kept, and its place in the tree. A
    file that cannot be decoded becomes a row of the report, never a crash. A job that was killed is started again with
    the same call and does only what is missing.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to a model that mends, such as `builtin:denoise`, or what it resolved to.
        out: Output folder: new, or of an earlier run. The images go into its folder `restored`.
        kind: Of the files that are written: png, tiff, webp or jpeg; png and tiff lose nothing.
        reference: Folder of clean images under the same names, whatever their suffix: PSNR and SSIM are measured.
        samples: So many more results of each image are drawn, of models that know several: they go into the folders
            `samples/1`, `samples/2` and so on.
        fresh: Forget the rows of earlier runs.

    Returns:
        Counts, and where the report is.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole; the message says what to do.
    """
    with open_restoring(folder, model, out, kind=kind, reference=reference, samples=samples, fresh=fresh) as restoring:
        shards = restoring.shards()
        with progress(log, "restore", len(restoring.files), "images", len(restoring.files) - restoring.left) as advance:
            for shard in shards:
                restoring.run(shard, advance)
        return restoring.finish()


@contextlib.contextmanager
def open_restoring(
    folder: Path | str,
    model: str | Path | ModelFile,
    out: Path | str,
    *,
    kind: str = "png",
    reference: Path | None = None,
    samples: int = 0,
    fresh: bool = False,
) -> Iterator[Restoring]:
    """The same job in steps, for callers that schedule shards themselves: `shards()`, `run(shard)`, `finish()`.

    Raises:
        KintsugiError: As for `restore_folder`.
    """
    folder, out = Path(folder), Path(out)
    check_output(out, folder, verb="restore")
    if (written := next((known for known in SUFFIXES if known == kind), None)) is None:
        raise FolderError(f"'{kind}' is no kind of file that is written: use {', '.join(SUFFIXES)}")
    found = list_images(folder)
    clean = None if reference is None else by_name(list_images(reference).files)  # it is there, and holds images
    file = model if isinstance(model, ModelFile) else find_model(model)
    session = open_restoring_session(file, device=settings().device, threads=settings().workers)
    if isinstance(session, SegmentingSession) and written not in EXACT:
        raise FolderError(f"labels are written as {' or '.join(EXACT)}, which keep their values: give --format png")
    if samples and isinstance(session, RestoringSession):
        raise FolderError(f"{file.ref} knows one result for each image: leave samples out")
    if not 0 <= samples <= MOST_SAMPLES:
        raise FolderError(f"samples is {samples}: from 0 to {MOST_SAMPLES}")
    made_of = json.dumps([file.sha256, kind, samples, DRAWING])
    output = OutputFolder(out, work_key=hashlib.sha256(made_of.encode()).hexdigest(), source=folder, verb="restore")
    with output.held(fresh=fresh):
        restoring = Restoring(
            folder=folder, files=found.files, unreadable=found.unreadable, model=file, output=output, session=session,
            kind=written, names=output_names(found.files, SUFFIXES[written]), reference=reference, clean=clean,
            samples=samples,
        )  # fmt: skip
        output.write_json("run.json", restoring.describe([], finished=False))
        yield restoring


@dataclass(slots=True, kw_only=True)
class Restoring(FolderRun):
    """An open job that mends."""

    session: AnyRestoring
    kind: FileKind
    names: Mapping[str, str]  # of a file -> of what is made of it
    reference: Path | None = None
    samples: int = 0  # that are drawn beside each result
    clean: Mapping[str, ImageFile] | None = None  # to compare with, by name with and without suffix

    @property
    def classes(self) -> tuple[str, ...]:
        """Of labels; none where the model mends."""
        metadata = self.session.metadata
        return metadata.classes if isinstance(metadata, SegmentationMetadata) else ()

    @property
    def verb(self) -> str:
        """What was done to images."""
        if isinstance(self.session.metadata, ColorizationMetadata):
            return "coloured"
        return "labelled" if self.classes else "restored"

    def holds(self, row: Row) -> bool:
        """Whether the result is there, under the name that it has now: a file may have come that it collides with."""
        due = self.names[row["path"]]
        return bool(row["output"] == due) and all((self.output.out / name).is_file() for name in outputs_of(row))

    def rows_of(self, files: Sequence[ImageFile]) -> Iterator[list[Row]]:
        """The rows of some files, one by one."""
        limits = settings()
        opened = open_images(files, workers=limits.workers, max_pixels=limits.max_pixels)
        for each in self.timed_each(opened):
            yield [failed_row(each) if isinstance(each, Failed) else self._row(each)]

    def finish(self) -> RestoreSummary:
        """Merge all rows, write results and the report."""
        from pipelines.report import write_report

        rows = self.merged()
        for row in rows:
            row.update(model=self.model.name or self.session.metadata.name, version=self.model.version)
            row.update(dict.fromkeys(("p_value", "is_anomaly", "threshold", "group")))
        if self.classes and self.reference is not None:
            self._compare_labels(rows)
        else:
            self._compare(rows)
        self.output.forget_evaluation()
        self.output.write_results(rows)
        self.output.write_gallery(rows)
        self.output.forget_results({name for row in rows for name in outputs_of(row)})
        run = self.describe(rows, finished=True)
        self.output.write_json("run.json", run)
        for warning in run["warnings"]:
            log.warning("%s", warning)
        means = {name: _mean(rows, name) for name in ("psnr", "dice")}
        return RestoreSummary(
            out=self.output.out,
            report=write_report(self.output.out),
            files=self.total,
            ok=run["counts"]["ok"],
            failed=run["counts"]["failed"],
            images_per_second=run["timings"]["images_per_second"],
            done=self.verb,
            **means,
        )

    def describe(self, rows: Sequence[Row], *, finished: bool) -> dict[str, Any]:
        """The document of run.json."""
        counts = Counter(row["status"] for row in rows)
        words = ["kintsugi", "restore", str(self.folder.resolve()), "--model", self.model.pinned_ref]
        words += ["--out", str(self.output.out.resolve()), "--format", self.kind]
        words += ["--samples", str(self.samples)] * bool(self.samples)
        if self.reference is not None:
            words += ["--reference", str(self.reference.resolve())]
        missing = self._without_reference(rows)
        twin = "label image" if self.classes else "clean image"
        useless = f"{missing} image(s) were not compared: no {twin} has their name, or a note says why it is of no use"
        warnings = [useless] if missing else []
        shown = {"ok": counts["ok"], "failed": counts["failed"]}
        document = describe_run("restore", self, self.session, shown, warnings, finished=finished)
        return document | {"command": shlex.join(words)}

    def _without_reference(self, rows: Sequence[Row]) -> int:
        return (
            0
            if self.clean is None
            else sum(row["status"] == "ok" and row["psnr"] is None and row["dice"] is None for row in rows)
        )

    def _compare(self, rows: Sequence[Row]) -> None:
        """PSNR and SSIM of what was made, where there is a clean image of the name; a note where that is of no use."""
        pairs = [(row, twin) for row in rows if row["status"] == "ok" and (twin := self._twin(row["path"])) is not None]
        if not pairs:
            return
        metadata, limit = self.session.metadata, settings().max_pixels
        luma, border = (metadata.luma, metadata.border) if isinstance(metadata, RestorationMetadata) else (False, 0)
        with progress(log, "compare", len(pairs), "images") as advance:
            for row, twin in pairs:
                advance()
                try:
                    clean = read_image(twin.path, max_pixels=limit).pixels
                    made = read_image(self.output.out / row["output"], max_pixels=limit * metadata.scale**2).pixels
                    height, width = (length // metadata.scale * metadata.scale for length in clean.shape[:2])
                    row |= compare(made, clean[:height, :width], luma=luma, border=border)
                    problem = None if row["psnr"] is not None else f"is of another size: {width} x {height}"
                except ImageError as error:
                    problem = str(error)
                if problem is not None:
                    row["note"] = "; ".join(filter(None, (row["note"], f"the clean image {twin.relative} {problem}")))

    def _compare_labels(self, rows: Sequence[Row]) -> None:
        """Dice and IoU of what was made, where there are true labels; a note where those are of no use."""
        assert self.reference is not None  # noqa: S101 - then there is nothing to compare with
        labels = LabelFolder.find(self.reference, len(self.classes))
        done = [row for row in rows if row["status"] == "ok"]
        with progress(log, "compare", len(done), "images") as advance:
            for row in done:
                advance()
                image = ImageFile(self.folder / row["path"], row["path"], 0, 0)
                if labels.file_of(image) is None:
                    continue
                try:
                    true = labels.of(image, (row["height"], row["width"]))
                    made = read_labels(self.output.out / row["output"], len(self.classes))
                    row |= compare_labels(made, true, len(self.classes))
                except ImageError as error:
                    row["note"] = "; ".join(filter(None, (row["note"], str(error))))

    def _twin(self, relative: str) -> ImageFile | None:
        clean = self.clean or {}
        return clean.get(relative) or clean.get(stem_of(relative))

    def _row(self, opened: Opened) -> Row:
        file, image = opened.file, opened.take()
        row = empty_row(file) | {
            "sha256": image.sha256,
            "width": image.pixels.shape[1],
            "height": image.pixels.shape[0],
            "bit_depth": image.bit_depth,
        }
        try:
            with self.timed("run"):
                mended = self._made(image)
            with self.timed("write"):
                shown = self.among_worst(mended.mean_scale)
                draw_pictures = pictures_of_colours if isinstance(self.session, ColorizingSession) else pictures_of
                pictures = draw_pictures(image.pixels, mended) if shown else {}
            if self.samples:
                pictures |= self._draw(file, image, mended, shown=shown)
            with self.timed("write"):
                image = replace(image, pixels=image.pixels[:0].copy())  # it has done its work, and may be large
                notes = self._write(file, image, mended)
        except ImageError as error:
            return row | {"status": "failed", "error": str(error)}
        except OSError as error:
            if error.errno is not None:  # of the disk; Pillow's own have no number
                raise
            return row | {"status": "failed", "error": f"cannot be written: {one_line(error)}"}
        except Exception as error:  # noqa: BLE001 - a file must never stop a job: not by a bug, either
            reason = "does not fit into memory" if isinstance(error, MemoryError) else one_line(error)
            return row | {"status": "failed", "error": f"cannot be restored: {reason or type(error).__name__}"}
        note = "; ".join(filter(None, (image.note, *mended.notes, *notes))) or None
        found = {"status": "ok", "note": note, "output": self.names[file.relative], "mean_scale": mended.mean_scale}
        return row | found | pictures

    def _made(self, image: Image) -> Mended:
        """The image through the model, whatever that does."""
        match self.session:
            case SegmentingSession() as session:
                return label(session, image)
            case ColorizingSession() as session:
                return colour(session, image)
            case session:
                return mend(session, image)

    def _draw(self, file: ImageFile, image: Image, mended: Mended, *, shown: bool) -> Row:
        """Write samples, one at a time; where they differ, and the first of them as pictures."""
        names = outputs_of({"output": self.names[file.relative], "samples": self.samples})[1:]
        samples = self._sampled(image)
        first: Samples | None = None
        apart = np.zeros(image.pixels.shape[:2], bool)
        pictures: list[bytes] = []
        for number, name in enumerate(names):
            with self.timed("run"):
                sample = next(samples)
            with self.timed("write"):
                self._write_file(name, self._encoded(sample, image))
                if shown and number < SHOWN_SAMPLES:
                    pictures.append(self._picture_of(sample, image, mended))
            if self.classes:
                first = sample if first is None else first
                apart |= sample != first
        differ = float(apart.mean()) if len(names) > 1 and self.classes else None
        return {"samples": len(names), "disagreement": differ, "sampled": pictures or None}

    def _sampled(self, image: Image) -> Iterator[Samples]:
        """Label maps (H, W), or colourings (H, W, 3)."""
        if isinstance(self.session, SegmentingSession):
            return draw(self.session, image, self.samples)
        assert isinstance(self.session, ColorizingSession)  # noqa: S101 - of others it was refused
        return draw_colours(self.session, image, self.samples)

    def _encoded(self, sample: Samples, image: Image) -> bytes:
        if sample.ndim == 2:
            return encode_labels(self.kind, sample, len(self.classes), image.dpi)
        return encode_image(self.kind, sample, image.alpha, icc=_profile(image, sample), dpi=image.dpi)[0]

    def _picture_of(self, sample: Samples, image: Image, mended: Mended) -> bytes:
        if sample.ndim == 2:
            return picture_of_labels(image.pixels, mended, sample)
        return picture_of_colours(sample, image.pixels)

    def _write(self, file: ImageFile, image: Image, mended: Mended) -> tuple[str, ...]:
        scale = self.session.metadata.scale
        dpi = image.dpi and (image.dpi[0] * scale, image.dpi[1] * scale)  # of the same size on paper
        notes: tuple[str, ...] = ()
        try:
            if mended.labels is None:
                content, notes = encode_image(
                    self.kind, mended.pixels, mended.alpha, icc=_profile(image, mended.pixels), dpi=dpi
                )
            else:
                content = encode_labels(self.kind, mended.labels, len(self.classes), dpi)
        except ValueError as error:
            raise ImageError(f"cannot be written: {error}") from None
        self._write_file(self.names[file.relative], content)
        return notes

    def _write_file(self, name: str, content: bytes) -> None:
        write_atomically(self.output.out / name, lambda temporary: temporary.write_bytes(content))


def _profile(image: Image, made: Samples) -> bytes | None:
    """The file's colour profile, unless it is of grey values and what was made has colours."""
    return image.icc if image.pixels.shape[2] == made.shape[2] else None


def _mean(rows: Sequence[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(known)) if known else None
