"""The scoring of a folder as a flow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.artifacts import record_scores
from flows.folder_run import report_run, run_folder, run_shards
from flows.notify import tell_failure
from flows.runs import only_warned, recorded_run
from pipelines.anomaly.against import Against
from pipelines.batch.engines import Engine
from pipelines.batch.options import ScoreOptions
from pipelines.jobfile.tables import Age, AlarmTable
from pipelines.score import ScoreSummary, open_scoring


@flow(
    name="score", flow_run_name="score {folder.name} with {model}", persist_result=False,
    on_failure=[tell_failure], on_crashed=[tell_failure],
)  # fmt: skip
def score_flow(
    folder: Path,
    model: str,
    out: Path,
    false_alarms: float | None = None,
    own_folder: bool = False,
    groups: bool = False,
    budget: int | None = None,
    false_discoveries: float | None = None,
    against: Against = "auto",
    all_maps: bool = False,
    engine: Engine = "local",
    alarm: AlarmTable | None = None,
    series: bool = False,
    keep: Age | None = None,
) -> ScoreSummary:
    """Score every image under a folder and write the anomaly report.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to an anomaly model, such as `tiles@champion`.
        out: Output folder: a new one, or that of an earlier run.
        false_alarms: Share of good images that may be flagged; the default is the model's own rate.
        own_folder: Write into a new folder inside `out`, which is named by the run's due time and name.
        groups: Judge each sub-folder by the calibration images of the same name, if there are enough.
        budget: Flag at most this number of images: those with the highest scores above the threshold.
        false_discoveries: Share of the flagged images that may be good. Replaces `false_alarms`.
        against: What each score is compared with: "calibration", "folder", or "auto".
        all_maps: Write a heat map of every image, not only of the flagged ones.
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
        options = ScoreOptions(
            false_alarms=false_alarms, groups=groups, budget=budget, false_discoveries=false_discoveries,
            all_maps=all_maps, against=against, alarm=alarm, series=series,
        )  # fmt: skip
        opener = partial(open_scoring, folder, model, out, options)
        summary: ScoreSummary = run_shards("score", model, opener, engine)
        with only_warned("the run has no page in Prefect"):
            record_scores(summary, folder, model)
        report_run(summary.out, model, summary.alarms, series=series, keep=keep)
        return summary
