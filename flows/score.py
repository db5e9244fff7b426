"""The batch job that scores, as a flow."""

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
        model: Reference to a scoring model, such as `tiles@champion`.
        out: Output folder: new, or of an earlier run.
        false_alarms: Share of good images that may be flagged; default: the model's.
        own_folder: Write into a new folder inside `out`, named by the time that the run was due and by its name.
        groups: Judge each sub-folder by the calibration images of its own name, where there are enough.
        budget: Flag at most so many images, the worst of those that would be flagged.
        false_discoveries: Instead of a false-alarm rate: share of the flagged images that may be good.
        against: What images are judged against: "calibration", "folder", or "auto".
        all_maps: Write a heat map of every image, not of the flagged ones alone.
        engine: Where shards are done: "local", or "ray" for every machine of the cluster that RAY_ADDRESS names.
        alarm: When the run raises an alarm, as a job's `[alarm]` says it.
        series: `out` is one of many in one folder, as with `own_folder`: they get a page over time.
        keep: How long runs that have an `own_folder` are kept, such as 90d; default: for ever.

    Returns:
        Counts, and where the report is.
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
