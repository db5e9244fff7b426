"""Restore every image under a folder, with an error bar, and write a report.

    find images -> skip finished ones -> decode -> tiles through the model -> encode at the file's depth -> rows
    -> report

This module does not need torch: the network, its error bar and the overlap of tiles are in the model file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.anomaly.against import OF_BOTH
from pipelines.anomaly.verdicts import OF_ROWS
from pipelines.base.concurrency import in_order
from pipelines.base.files import write_atomically
from pipelines.base.progress import progress
from pipelines.base.safe_text import one_line
from pipelines.batch.comparison import CleanImages, Reference, TrueLabels
from pipelines.batch.engines import Engine, run_job
from pipelines.batch.folder_run import FolderRun
from pipelines.batch.options import RestoreOptions
from pipelines.batch.output_folder import OutputFolder, check_output, outputs_of
from pipelines.batch.output_names import OutputNames
from pipelines.batch.rows import empty_row, failed_row
from pipelines.batch.run_json import describe_run
from pipelines.batch.schema import Row
from pipelines.errors import FolderError, ImageError
from pipelines.images import Failed, Image, ImageFile, Opened, expect_images, list_images, open_images
from pipelines.images.bits import ALL
from pipelines.images.camera_bits import describe_bits, in_all_bits
from pipelines.images.parallel_decoding import PIXELS_AHEAD
from pipelines.images.samples import Samples
from pipelines.images.write import SUFFIXES
from pipelines.models.inputs import bits_for
from pipelines.models.model_file import ColorizationMetadata, ModelFile, RestorationMetadata, SegmentationMetadata
from pipelines.models.session import (
    AnyRestoring,
    ColorizingSession,
    RestoringSession,
    SegmentingSession,
    open_restoring_session,
)
from pipelines.registry.resolve import find_model
from pipelines.restoration.colorizer import colour_image, draw_colours
from pipelines.restoration.noise import describe_left_noise, is_left
from pipelines.restoration.pictures import DRAWING, draw_colour_pictures, draw_pictures, draw_sample
from pipelines.restoration.restorer import Result, restore_image
from pipelines.restoration.result_file import encode_result
from pipelines.restoration.segmenter import EXACT, draw_labels, label_image
from pipelines.settings import settings

log = logging.getLogger(__name__)
SHOWN_SAMPLES = 4
MANY_NOISY = 0.5  # if more than this share of the images is still noisy, the model is the wrong one


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """Counts of a finished run, and the path of its report."""

    out: Path  # the output folder
    report: Path  # path of report.html
    files: int  # number of image files that were found
    ok: int  # number of files with a result
    failed: int  # number of files without a result
    images_per_second: float | None  # speed; None if no work was left
    psnr: float | None = None  # mean PSNR in dB, if there are clean images to compare with
    input_psnr: float | None = None  # mean PSNR of the input images, in dB
    dice: float | None = None  # mean Dice score, if there are true labels to compare with
    done: str = "restored"  # `restored`, `labelled` or `coloured`
    alarms: tuple[str, ...] = ()  # one sentence for each alarm of the schedule's rules


def restore_folder(
    folder: Path | str,
    model: str | Path | ModelFile,
    out: Path | str,
    *,
    kind: str = "png",
    reference: Path | None = None,
    samples: int = 0,
    bits: int | None = None,
    gps: bool = True,
    strength: float = 1.0,
    stamp: bool = True,
    fresh: bool = False,
    engine: Engine = "local",
) -> RestoreSummary:
    """Restore every image under a folder.

    The output keeps depth, transparency, colours, resolution, pixel size, georeference, date and position of the
    photograph, and the file's place in the folder tree. A file that cannot be decoded becomes a row of the report and
    never stops the job. After an interruption, the same call does only the missing work.

    Args:
        folder: Images, in sub-folders or not.
        model: A restoration model: a reference such as `builtin:denoise`, a path, or a `ModelFile`.
        out: Output folder: a new one, or that of an earlier run. The images go into its folder `restored`.
        kind: Format of the output files: png, tiff, webp or jpeg. png and tiff are lossless.
        reference: Folder of clean images with the same names (any suffix), to measure PSNR and SSIM.
        samples: Number of further results to draw for each image, with models that can draw several. They go into the
            folders `samples/1`, `samples/2` and so on.
        bits: Bits used in 16-bit files, from 8 to 16. The model sees them as the full range. The default is measured
            on some files.
        gps: Keep the GPS position of photographs.
        strength: Mix image and result: 0 is the image, 1 is the result. For restoration models that keep the size. The
            error bar is that of the mixture.
        stamp: Write model, version and sha256 into each file: into the EXIF tag Software, in PNG also as text.
        fresh: Discard the results of earlier runs. Otherwise a replaced file of the same size and time counts as done.
        engine: Where the work is done: "local", or "ray" for all machines of a Ray cluster.

    Returns:
        Counts, and the path of the report.

    Raises:
        KintsugiError: Wrong usage or bad input; the message has the next step.
    """
    options = RestoreOptions(
        kind=kind, reference=reference, samples=samples, bits=bits, gps=gps, strength=strength, stamp=stamp, fresh=fresh
    )
    # For each shard of files: FolderRun.run, which takes rows from Restoring.make_rows; then Restoring.finish.
    summary: RestoreSummary = run_job(open_restoring(folder, model, out, options), engine)
    return summary


@contextlib.contextmanager
def open_restoring(
    folder: Path | str, model: str | Path | ModelFile, out: Path | str, options: RestoreOptions
) -> Iterator[Restoring]:
    """Open the job for callers that schedule the shards themselves: `shards()`, `run(shard)`, `finish()`.

    Raises:
        KintsugiError: See `restore_folder`.
    """
    folder, out, kind = Path(folder), Path(out), options.file_kind
    check_output(out, folder, verb="restore")
    found = list_images(folder)
    found.left_out.log()
    if options.reference is not None:
        expect_images(options.reference)
    file = model if isinstance(model, ModelFile) else find_model(model)
    session = open_restoring_session(file, device=settings().device, threads=1, calls=settings().workers)
    if isinstance(session, SegmentingSession) and kind not in EXACT:
        raise FolderError(f"labels are written as {' or '.join(EXACT)}, which keep their values: give --format png")
    if options.samples and isinstance(session, RestoringSession):
        raise FolderError(f"{file.ref} gives only one result for each image: leave --samples out")
    metadata = session.metadata
    if options.strength < 1 and not (isinstance(metadata, RestorationMetadata) and metadata.scale == 1):
        raise FolderError(
            f"the result of {file.ref} has another kind or size than the image and cannot be mixed with it: leave "
            "--strength out"
        )
    bits = options.bits or bits_for(metadata, found.files)
    made_of = json.dumps([
        file.sha256, kind, options.samples, DRAWING, bits, *["no gps"] * (not options.gps), options.strength,
        _describe_maker(file, metadata.name, options),
    ])  # fmt: skip
    output = OutputFolder(out, work_key=hashlib.sha256(made_of.encode()).hexdigest(), source=folder, verb="restore")
    with output.hold(fresh=options.fresh):
        restoring = Restoring(
            folder=folder, files=found.files, unreadable=found.unreadable, left_out=found.left_out, model=file,
            session=session, output=output, options=options, bits=bits,
            names=OutputNames(found.files, SUFFIXES[kind], folds=output.folds),
        )  # fmt: skip
        restoring.begin()
        yield restoring


@dataclass(slots=True, kw_only=True)
class Restoring(FolderRun):
    """An open restoration job."""

    verb = "restore"
    counted = ("ok", "failed")

    session: AnyRestoring
    options: RestoreOptions
    names: OutputNames  # names of the output files
    bits: int = ALL  # bits used in 16-bit files
    not_compared: int = 0  # images without a usable reference
    still_noisy: int = 0  # images that keep most of their noise

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of a model that labels pixels; empty for other models."""
        metadata = self.session.metadata
        return metadata.classes if isinstance(metadata, SegmentationMetadata) else ()

    @property
    def done(self) -> str:
        """The word for the work: restored, coloured or labelled."""
        if isinstance(self.session.metadata, ColorizationMetadata):
            return "coloured"
        return "labelled" if self.classes else "restored"

    def is_done(self, row: Row) -> bool:
        """Return whether the result exists under its current name, which changes if a new file has the same name."""
        due = self.names[row["path"]]
        return bool(row["output"] == due) and all((self.output.out / name).is_file() for name in outputs_of(row))

    def look_back(self) -> None:
        """Delete results of images that are gone if they block the names of others."""
        names = ({"output": self.names[file.relative], "samples": self.options.samples} for file in self.files)
        self.output.clear_way(name for row in names for name in outputs_of(row))

    def make_rows(self, files: Sequence[ImageFile]) -> Generator[list[Row]]:
        """Yield the rows of some files one by one. Several images are restored at a time; a large one runs alone."""
        limits = settings()
        opened = open_images(
            files, workers=limits.workers, max_pixels=limits.max_pixels,
            spent=lambda seconds: self.stages.add("decode", seconds),
        )  # fmt: skip
        rows = in_order(self._row, opened, workers=limits.workers, weight=_pixels, limit=PIXELS_AHEAD * limits.workers)
        for row in rows:
            yield [row]

    def finish(self) -> RestoreSummary:
        """Merge all rows, and write the results and the report."""
        reference, due = self._open_reference(), self.output.new_names()
        self.not_compared = self.still_noisy = 0  # this method may be called again

        def compare(rows: list[Row]) -> None:
            for row in rows:
                row |= dict.fromkeys((*OF_ROWS, *OF_BOTH))
                if row["status"] == "ok":
                    if row["input_noise"] is not None:
                        self.still_noisy += is_left(row["input_noise"], row["output_noise"], self.options.strength)
                    if reference is not None:
                        reference.compare(row, self.output.out)
                        self.not_compared += row["psnr"] is None and row["dice"] is None
                    for name in outputs_of(row):
                        due.add(name)
                advance()

        with self._comparing() as advance:
            results = self.write_results(compare)
        self.output.forget_results(due)
        run, report = self.write_report(results)
        return RestoreSummary(
            out=self.output.out,
            report=report,
            files=self.total,
            ok=results.counts["ok"],
            failed=results.counts["failed"],
            images_per_second=run["timings"]["images_per_second"],
            done=self.done,
            psnr=results.mean("psnr"),
            input_psnr=results.mean("input_psnr"),
            dice=results.mean("dice"),
            alarms=tuple(run["alarms"]),
        )

    def describe(self, counts: Mapping[str, int], *, finished: bool) -> dict[str, Any]:
        """Describe the run, for run.json."""
        asked, bits = self.options, self.options.bits
        if bits is None and self.bits < ALL:  # meaningless for a folder of 8-bit files
            bits = self.bits
        options = ["--format", asked.file_kind]
        options += [] if bits is None else ["--bits", str(bits)]
        options += ["--samples", str(asked.samples)] * bool(asked.samples) + ["--no-gps"] * (not asked.gps)
        options += [f"--strength={asked.strength:g}"] * (asked.strength < 1) + ["--no-stamp"] * (not asked.stamp)
        options += [] if asked.reference is None else ["--reference", str(asked.reference.resolve())]
        twin = "label image" if self.classes else "clean image"
        missing = self.not_compared
        useless = f"{missing} image(s) were not compared: no {twin} has their name, or it does not fit (see the notes)"
        warnings = [useless] * bool(missing) + [describe_bits(self.bits)] * (self.bits < ALL and finished)
        if self.still_noisy > MANY_NOISY * counts["ok"]:
            warnings.append(describe_left_noise(self.still_noisy, counts["ok"]))
        return describe_run(self, counts, options=options, warnings=warnings, finished=finished) | {"bits": bits}

    def _open_reference(self) -> Reference | None:
        metadata, folder = self.session.metadata, self.options.reference
        if folder is None:
            return None
        if isinstance(metadata, SegmentationMetadata):
            return TrueLabels(folder, self.folder, len(metadata.classes))
        return CleanImages(folder, self.files, metadata, self.bits)

    @contextlib.contextmanager
    def _comparing(self) -> Iterator[Callable[[], object]]:
        """Show progress if there is a reference to compare with."""
        if self.options.reference is None:
            yield lambda: None
            return
        with progress(log, "compare", self.total, "images") as advance:
            yield advance

    def _row(self, opened: Opened | Failed) -> Row:
        if isinstance(opened, Failed):
            return failed_row(opened)
        file, image = opened.file, opened.take()
        row = empty_row(file) | {
            "sha256": image.sha256,
            "width": image.pixels.shape[1],
            "height": image.pixels.shape[0],
            "bit_depth": image.bit_depth,
        }
        try:
            image, bits, range_note = in_all_bits(image, self.bits)
            with self.stages.timed("run"):
                result = self._run(image)
            with self.stages.timed("write"):
                shown = self.worst.enter(result.mean_scale)
                draw_all = draw_colour_pictures if isinstance(self.session, ColorizingSession) else draw_pictures
                pictures = draw_all(image.pixels, result) if shown else {}
            if self.options.samples:
                pictures |= self._draw_samples(file, image, result, bits, shown=shown)
            with self.stages.timed("write"):
                image = replace(image, pixels=image.pixels[:0].copy())  # no longer needed, and may be large
                made = result.pixels if result.labels is None else result.labels
                content, notes = self._encode(image, made, result.alpha, bits)
                self._write_file(self.names[file.relative], content)
        except ImageError as error:
            return row | {"status": "failed", "error": str(error)}
        except OSError as error:
            if error.errno is not None:  # a disk error; Pillow's own errors have no number
                raise
            return row | {"status": "failed", "error": f"cannot be written: {one_line(error)}"}
        except Exception as error:  # noqa: BLE001 - a file must never stop a job, even if there is a bug
            reason = "does not fit into memory" if isinstance(error, MemoryError) else one_line(error)
            return row | {"status": "failed", "error": f"cannot be restored: {reason or type(error).__name__}"}
        note = "; ".join(dict.fromkeys(filter(None, (image.note, range_note, *result.notes, *notes)))) or None
        found = {"status": "ok", "note": note, "output": self.names[file.relative], "mean_scale": result.mean_scale}
        if result.noise is not None:
            found |= dict(zip(("input_noise", "output_noise"), result.noise, strict=True))
        return row | found | pictures

    def _run(self, image: Image) -> Result:
        """Run a model of any kind on an image."""
        match self.session:
            case SegmentingSession() as session:
                return label_image(session, image)
            case ColorizingSession() as session:
                return colour_image(session, image)
            case session:
                return restore_image(session, image, strength=self.options.strength)

    def _draw_samples(self, file: ImageFile, image: Image, result: Result, bits: int, *, shown: bool) -> Row:
        """Write the samples one by one; return the share of pixels that differ, and pictures of the first samples."""
        names = outputs_of({"output": self.names[file.relative], "samples": self.options.samples})[1:]
        samples = self._sample(image)
        first: Samples | None = None
        apart = np.zeros(image.pixels.shape[:2], bool)
        pictures: list[bytes] = []
        for number, name in enumerate(names):
            with self.stages.timed("run"):
                sample = next(samples)
            with self.stages.timed("write"):
                self._write_file(name, self._encode(image, sample, image.alpha, bits)[0])
                if shown and number < SHOWN_SAMPLES:
                    pictures.append(draw_sample(image.pixels, result, sample))
            if self.classes:
                first = sample if first is None else first
                apart |= sample != first
        differ = float(apart.mean()) if len(names) > 1 and self.classes else None
        return {"samples": len(names), "disagreement": differ, "sampled": pictures or None}

    def _sample(self, image: Image) -> Iterator[Samples]:
        """Yield label maps (H, W), or colourings (H, W, 3)."""
        if isinstance(self.session, SegmentingSession):
            return draw_labels(self.session, image, self.options.samples)
        assert isinstance(self.session, ColorizingSession)  # noqa: S101 - samples of other models were refused
        return draw_colours(self.session, image, self.options.samples)

    def _encode(self, image: Image, made: Samples, alpha: Samples | None, bits: int) -> tuple[bytes, tuple[str, ...]]:
        return encode_result(
            image, made, alpha, kind=self.options.file_kind, scale=self.session.metadata.scale,
            classes=len(self.classes), gps=self.options.gps, bits=bits,
            software=_describe_maker(self.model, self.session.metadata.name, self.options),
        )  # fmt: skip

    def _write_file(self, name: str, content: bytes) -> None:
        write_atomically(self.output.out / name, lambda temporary: temporary.write_bytes(content))


def _describe_maker(file: ModelFile, name: str, options: RestoreOptions) -> str | None:
    """Return the text on a file's origin; None without a stamp."""
    if not options.stamp:
        return None
    strength = f", strength {options.strength:g}" if options.strength < 1 else ""
    version = "" if file.version is None else f"/{file.version}"
    return f"Kintsugi, model {file.name or name}{version} (sha256 {file.sha256}){strength}"


def _pixels(opened: Opened | Failed) -> int:
    """Return the number of pixels; 0 without an image."""
    return 0 if isinstance(opened, Failed) or opened.image is None else opened.image.pixels[..., 0].size
