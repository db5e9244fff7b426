"""The restoration of a folder as a flow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.artifacts import record_restored
from flows.folder_run import report_run, run_folder, run_shards
from flows.notify import tell_failure
from flows.runs import only_warned, recorded_run
from pipelines.batch.engines import Engine
from pipelines.batch.options import RestoreOptions
from pipelines.jobfile.tables import Age, AlarmTable
from pipelines.restore import RestoreSummary, open_restoring


@flow(
    name="restore", flow_run_name="restore {folder.name} with {model}", persist_result=False,
    on_failure=[tell_failure], on_crashed=[tell_failure],
)  # fmt: skip
def restore_flow(
    folder: Path,
    model: str,
    out: Path,
    kind: str = "png",
    reference: Path | None = None,
    samples: int = 0,
    bits: int | None = None,
    gps: bool = True,
    strength: float = 1.0,
    stamp: bool = True,
    own_folder: bool = False,
    engine: Engine = "local",
    alarm: AlarmTable | None = None,
    series: bool = False,
    keep: Age | None = None,
) -> RestoreSummary:
    """Restore every image under a folder and write the report.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to a model that restores, such as `builtin:denoise`.
        out: Output folder: a new one, or that of an earlier run.
        kind: Format of the output files: png, tiff, webp or jpeg.
        reference: Folder of clean images with the same names, to measure PSNR and SSIM.
        samples: Number of further results to draw for each image, with models that can draw several.
        bits: Bits used in 16-bit files; the default is measured on some files of the folder.
        gps: Keep the GPS position of photographs.
        strength: Mix image and result: 0 is the image, 1 is the result. For models that keep the size.
        stamp: Write model, version and sha256 into each file.
        own_folder: Write into a new folder inside `out`, which is named by the run's due time and name.
        engine: Where shards are processed: "local", or "ray" for all machines of the cluster at RAY_ADDRESS.
        alarm: Rules for alarms, as in a job's `[alarm]`.
        series: `out` is one of many runs in one folder, as with `own_folder`: they get a history page.
        keep: How long runs with an `own_folder` are kept, such as 90d; by default for ever.

    Returns:
        Counts, and the path of the report.
    """
    series = series or own_folder
    if own_folder:
        out = out / run_folder(flow_run.scheduled_start_time, flow_run.name)
    with recorded_run():
        options = RestoreOptions(
            kind=kind, reference=reference, samples=samples, bits=bits, gps=gps, strength=strength, stamp=stamp,
            alarm=alarm, series=series,
        )  # fmt: skip
        opener = partial(open_restoring, folder, model, out, options)
        summary: RestoreSummary = run_shards("restore", model, opener, engine)
        with only_warned("the run has no page in Prefect"):
            record_restored(summary, folder, model)
        report_run(summary.out, model, summary.alarms, series=series, keep=keep)
        return summary
