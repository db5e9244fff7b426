"""The scoring flow over a stand-in for the job: what Prefect sees, and what is done again."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ParameterTypeError

import flows.folder_run
import flows.notify
import flows.restore
import flows.score
from flows.artifacts import list_counts, scores_page
from flows.folder_run import report_run, run_folder
from flows.restore import restore_flow
from flows.score import score_flow
from pipelines.anomaly.rate_claim import Measured, RateClaim
from pipelines.base.progress import progress
from pipelines.batch.folder_run import Shard
from pipelines.batch.options import RestoreOptions, ScoreOptions
from pipelines.errors import FolderError, RegistryError
from pipelines.images import FileList
from pipelines.restore import RestoreSummary
from pipelines.score import ScoreSummary

NO_FILES = FileList.of(Path(), [])


class FakeScoring:
    """Three shards whose results are files in the output folder, as those of the real job are."""

    def __init__(self, out: Path, model: str) -> None:
        self.out, self.model = out, model
        self.files = tuple(range(30))
        self.left = 0
        self.failures: list[Exception] = []
        self.ran: list[int] = []

    def shards(self) -> list[Shard]:
        missing = [number for number in range(3) if not (self.out / self.model / str(number)).exists()]
        self.left = 10 * len(missing)
        return [Shard(number, NO_FILES, np.zeros(0, np.int64)) for number in missing]

    def run(self, shard, advance):
        if self.failures:
            raise self.failures.pop(0)
        self.ran.append(shard.number)
        done = self.out / self.model / str(shard.number)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
        advance(10)
        logging.getLogger("pipelines.score").info("shard %d is done", shard.number)

    def finish(self) -> ScoreSummary:
        assert not self.shards()
        return ScoreSummary(
            out=self.out, report=self.out / "report.html", files=30, ok=29, failed=1, flagged=4,
            false_alarms=0.01, threshold=1.25, images_per_second=None,
        )  # fmt: skip


@pytest.fixture
def job(monkeypatch, home):
    """The stand-in, opened by the flow; retries come at once."""
    made = SimpleNamespace(opened=[], failures=[], published=[])

    @contextmanager
    def open_scoring(folder, model, out, options):
        scoring = FakeScoring(out, model)
        scoring.failures = made.failures
        made.opened.append((folder, model, out, options))
        made.scoring = scoring
        yield scoring

    monkeypatch.setattr(flows.score, "open_scoring", open_scoring)
    monkeypatch.setattr(flows.folder_run, "publish", made.published.append)
    monkeypatch.setattr(flows.folder_run, "do_shard", flows.folder_run.do_shard.with_options(retry_delay_seconds=0))
    return made


def last_run(client, flow="score"):
    runs = client.read_flow_runs(limit=200)
    return max((run for run in runs if run.name.startswith(flow)), key=lambda run: run.created)


def task_runs(client, run, wait_for):
    """The task runs, which reach the database by way of events: once all of them are final there."""

    def final():
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        return found if found and all(each.state and each.state.is_final() for each in found) else None

    return wait_for(final, "final task runs")


def artifact(client, key):
    (found,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return found


def test_every_shard_is_a_task_and_the_run_has_a_name(job, client, tmp_path, wait_for):
    summary = score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out", 0.05, budget=7)

    assert summary.flagged == 4
    options = ScoreOptions(false_alarms=0.05, budget=7)
    assert job.opened == [(tmp_path / "inbox", "tiles@champion", tmp_path / "out", options)]
    run = last_run(client)
    assert run.name == "score inbox with tiles@champion"
    assert run.state.type == StateType.COMPLETED
    expected = {"open tiles@champion", "shard 1 of 3", "shard 2 of 3", "shard 3 of 3"}
    wait_for(lambda: expected <= {each.name for each in task_runs(client, run, wait_for)}, "the task runs")


def test_artifacts_hold_the_counts_and_the_way_to_the_report(job, client, tmp_path):
    score_flow(tmp_path / "Inbox 7", "nuts/3", tmp_path / "out")

    assert '"figure": "flagged", "value": "4"' in artifact(client, "score-inbox-7-nuts-3-counts").data
    page = artifact(client, "score-inbox-7-nuts-3-report").data
    assert "**4** of 29 images look abnormal" in page
    assert "**1** files could not be read" in page
    assert (tmp_path / "out" / "report.html").as_uri() in page


def test_when_no_image_could_be_scored_the_page_says_so(tmp_path):
    summary = ScoreSummary(
        out=tmp_path, report=tmp_path / "report.html", files=2, ok=0, failed=2, flagged=0,
        false_alarms=0.01, threshold=1.25, images_per_second=None,
    )  # fmt: skip
    page = scores_page(summary, tmp_path / "inbox", "nuts/3")
    assert "No image could be scored.\n\n**2** files could not be read" in page


def test_the_rate_asked_and_the_rate_measured_are_two_figures(tmp_path):
    summary = ScoreSummary(
        out=tmp_path, report=tmp_path / "report.html", files=9, ok=9, failed=0, flagged=1,
        false_alarms=0.01, threshold=1.25, images_per_second=None,
    )  # fmt: skip
    measured = Measured(rate=0.01, images=50, flagged=1)
    cross = replace(summary, claim=RateClaim(kind="cross", folds=5, measured=measured), unpromised=3)
    assert list_counts(summary)["promised false-alarm rate"] == 0.01
    found = list_counts(cross)
    assert (found["asked false-alarm rate"], found["measured false-alarm rate"]) == (0.01, 0.02)
    assert found["without a known rate"] == 3
    assert [name for name in found if "promise" in name] == []


def test_a_second_run_does_only_what_is_missing(job, client, tmp_path):
    score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    assert job.scoring.ran == [0, 1, 2]
    (tmp_path / "out" / "m1" / "1").unlink()  # Prefect has seen this shard completed: the disk counts

    score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    assert job.scoring.ran == [1]


def test_another_model_is_other_work(job, tmp_path):
    score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    score_flow(tmp_path / "inbox", "m2", tmp_path / "out")
    assert job.scoring.ran == [0, 1, 2]


def test_a_share_that_is_away_for_a_moment_is_tried_again(job, client, tmp_path):
    job.failures.append(ConnectionResetError("the share is away"))
    score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    assert job.scoring.ran == [0, 1, 2]
    assert not job.failures


@pytest.mark.parametrize("error", [FolderError("/out is full: give another"), ValueError("a bug")])
def test_what_does_not_mend_itself_fails_at_once(job, client, tmp_path, error):
    job.failures += [error, error]
    with pytest.raises(type(error), match=str(error)):
        score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    assert len(job.failures) == 1  # raised once
    run = last_run(client)
    assert run.state.type == StateType.FAILED
    assert str(error) in run.state.message


def test_a_user_error_is_logged_without_a_stack_trace(job, tmp_path, caplog):
    job.failures.append(FolderError("/out is full: give another"))
    with caplog.at_level(logging.ERROR), pytest.raises(FolderError):
        score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    messages = [record.getMessage() for record in caplog.records if record.name == "prefect.flow_runs"]
    assert "/out is full: give another" in messages
    assert not any(record.exc_info for record in caplog.records)


def test_what_the_pipeline_logs_is_in_the_runs_log(job, client, tmp_path, wait_for):
    score_flow(tmp_path / "inbox", "m1", tmp_path / "out")
    run = last_run(client)

    def lines():
        return [each.message for each in client.read_logs(limit=200) if each.flow_run_id == run.id]

    wait_for(lambda: {f"shard {number} is done" for number in range(3)} <= set(lines()), "the pipeline's lines")


def test_a_scheduled_run_writes_into_a_folder_of_its_own(job, tmp_path):
    score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "reports", own_folder=True)
    ((_, _, out, _),) = job.opened
    assert out.parent == tmp_path / "reports"
    time, name = out.name[:20], out.name[20:]
    assert datetime.strptime(time, "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=UTC) <= datetime.now(UTC)
    assert name == "-score-inbox-with-tiles-champion"


def test_folders_of_runs_sort_by_time_in_utc():
    due = datetime.fromisoformat("2026-11-21T03:04:05+01:00")
    assert run_folder(due, "../score a/b: ü") == "2026-11-21T02-04-05Z-score-a-b"


def test_progress_lines_do_not_flood(caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with (
        caplog.at_level(logging.INFO),
        progress(logging.getLogger("pipelines.score"), "score", 10_000, "images") as advance,
    ):
        for _ in range(10_000):
            advance()
    assert len(caplog.records) <= 1


def test_restoring_is_the_same_flow(job, client, tmp_path, monkeypatch, wait_for):
    opened = []

    class FakeRestoring(FakeScoring):
        def finish(self) -> RestoreSummary:
            assert not self.shards()
            report = self.out / "report.html"
            return RestoreSummary(
                out=self.out, report=report, files=30, ok=30, failed=0, images_per_second=2.0, psnr=31.5
            )

    @contextmanager
    def open_restoring(folder, model, out, options):
        opened.append(options)
        yield FakeRestoring(out, "denoise")

    monkeypatch.setattr(flows.restore, "open_restoring", open_restoring)
    summary = restore_flow(tmp_path / "scans", "builtin:denoise", tmp_path / "out", kind="tiff")
    assert summary.psnr == 31.5
    assert opened == [RestoreOptions(kind="tiff")]
    run = last_run(client, "restore")
    assert run.name == "restore scans with builtin:denoise"
    expected = {"open builtin:denoise", "shard 1 of 3", "shard 3 of 3"}
    wait_for(lambda: expected <= {each.name for each in task_runs(client, run, wait_for)}, "the task runs")
    assert '"figure": "psnr", "value": "31.5"' in artifact(client, "restore-scans-builtin-denoise-counts").data
    assert "30** of 30 images restored" in artifact(client, "restore-scans-builtin-denoise-report").data


def test_an_alarm_is_announced_told_and_linked(job, tmp_path, monkeypatch):
    told, announced = [], []
    monkeypatch.setattr(flows.folder_run, "notify", lambda subject, sentences: told.append((subject, sentences)))
    monkeypatch.setattr(flows.folder_run, "announce", lambda *event: announced.append(event))
    finish = FakeScoring.finish
    monkeypatch.setattr(FakeScoring, "finish", lambda self: replace(finish(self), alarms=("6 of 100 look abnormal",)))

    score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out")

    assert job.published == [tmp_path / "out"]
    assert announced == [("alarm", "tiles", ("6 of 100 look abnormal",))]
    report = f"Report: {tmp_path / 'out' / 'report.html'}"
    review = f"Review: kintsugi review {tmp_path / 'out'}"
    assert told == [("Kintsugi: alarm of tiles@champion", ["6 of 100 look abnormal", report, review])]


def test_a_run_of_a_series_is_put_on_the_page_over_time_and_old_ones_are_removed(job, tmp_path, monkeypatch):
    tidied = []
    monkeypatch.setattr(flows.folder_run, "tidy", lambda out, keep: tidied.append((out, keep)))
    score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out", own_folder=True, keep="90d")
    score_flow(tmp_path / "inbox" / "monday", "tiles@champion", tmp_path / "out" / "monday", series=True)
    score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "alone")
    (first, keep), second = tidied
    assert (first.parent, keep) == (tmp_path / "out", "90d")
    assert second == (tmp_path / "out" / "monday", None)
    with pytest.raises(ParameterTypeError, match="not a length of time"):
        score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out", own_folder=True, keep="90 days")


def test_an_alarm_that_the_last_run_raised_is_not_told_again(job, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(flows.folder_run, "notify", lambda *words: told.append(words))
    monkeypatch.setattr(flows.folder_run, "announce", lambda *_: None)
    monkeypatch.setattr(flows.folder_run, "tidy", lambda *_: None)
    days = [tmp_path / f"2026-11-2{day}T06-00-00Z-score-inbox" for day in range(3)]
    for out, alarms in zip(days, (["a"], ["a"], ["b"]), strict=True):
        out.mkdir()
        (out / "run.json").write_text(json.dumps({"alarms": alarms}))
        report_run(out, "tiles@champion", alarms, series=True, keep=None)
    assert [sentences[0] for _, sentences in told] == ["a", "b"]


def test_alarms_are_raised_before_anything_that_may_wait_or_fail(job, tmp_path, monkeypatch):
    order = []

    def broken(*_):
        order.append("page")
        raise OSError("the disk is full")

    monkeypatch.setattr(flows.folder_run, "notify", lambda *_: order.append("told"))
    monkeypatch.setattr(flows.folder_run, "announce", lambda *_: order.append("announced"))
    monkeypatch.setattr(flows.folder_run, "tidy", broken)
    monkeypatch.setattr(flows.folder_run, "publish", lambda _: order.append("published"))
    monkeypatch.setattr(
        flows.folder_run, "forget", lambda _, age: order.append(f"older than {age.days} days forgotten")
    )
    report_run(tmp_path, "tiles@champion", ["6 of 100"], series=True, keep="90d")
    assert order == ["announced", "told", "page", "published", "older than 90 days forgotten"]


def test_a_flow_that_fails_is_told(job, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(flows.notify, "notify", lambda subject, sentences: told.append((subject, sentences[0])))
    job.failures.append(FolderError("there is no inbox"))
    with pytest.raises(FolderError):
        score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out")
    ((subject, sentence),) = told
    assert subject == "Kintsugi: score inbox with tiles@champion failed"
    assert "there is no inbox" in sentence


def test_a_registry_that_is_away_afterwards_undoes_nothing(job, tmp_path, monkeypatch):
    def away(_):
        raise RegistryError("nothing answers")

    said = []
    monkeypatch.setattr(logging.getLogger("pipelines.runs"), "warning", lambda text, *given: said.append(text % given))
    monkeypatch.setattr(flows.folder_run, "publish", away)
    assert score_flow(tmp_path / "inbox", "tiles@champion", tmp_path / "out").ok == 29
    assert "the run is not in MLflow" in said[0]
