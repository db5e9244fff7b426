"""What answers are used for: a plain random sample of an audit, images to train on, thresholds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.batch.schema import RESULTS
from pipelines.errors import ReviewError
from pipelines.models.model_file import sha256_of
from pipelines.review.answers import Answer, Answers
from pipelines.review.audit import count_answers_for, draw_audit, thin_audit
from pipelines.review.run import ReviewedRun
from pipelines.review.uses import audits_of, taught_images


def test_every_image_is_in_the_sample_of_an_audit_with_the_same_chance() -> None:
    random = np.random.default_rng(0)
    scores = np.sort(random.normal(size=200))
    flagged = np.arange(200) >= 180
    seen, sizes = np.zeros(200), []
    for seed in range(1_000):
        audit = draw_audit(scores, flagged, seed)
        answered = np.zeros(200, bool)
        answered[audit.order[:100]] = True
        sample = thin_audit(audit, answered)
        seen[sample] += 1
        sizes.append(len(sample))
    shares = seen / 1_000
    assert min(sizes) > 30
    high, low = shares[flagged].mean(), shares[~flagged].mean()
    assert high == pytest.approx(low, rel=0.05)
    assert shares.std() < 0.03


def test_few_flagged_images_are_few_of_a_small_sample() -> None:
    scores = np.random.default_rng(0).normal(size=2_000)
    flagged = scores > np.quantile(scores, 0.99)
    shares = []
    for seed in range(300):
        audit = draw_audit(scores, flagged, seed)
        answered = np.zeros(2_000, bool)
        answered[audit.order[:60]] = True
        shares.append(flagged[thin_audit(audit, answered)].mean())
    assert 0.006 < np.mean(shares) < 0.014  # 0.05 if every stratum's share were rounded up


def test_a_sample_takes_an_answer_in_every_stratum() -> None:
    audit = draw_audit(np.arange(100.0), np.arange(100) >= 90, seed=0)
    only_flagged = np.arange(100) >= 90
    assert len(thin_audit(audit, only_flagged)) == 0
    assert len(thin_audit(audit, np.ones(100, bool))) == 100
    answered = np.zeros(100, bool)
    answered[audit.order[: count_answers_for(audit, 20)]] = True
    assert 20 <= len(thin_audit(audit, answered)) <= 23


@pytest.fixture
def reviewed(make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReviewedRun:
    """A run over files of which results have the true digests."""
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    out = make_run(tmp_path)
    rows = pq.read_table(out / "results.parquet").to_pylist()
    for row in rows:
        path = tmp_path / "images" / row["path"]
        row["sha256"] = sha256_of(path) if path.is_file() else row["sha256"]
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), out / "results.parquet")
    return ReviewedRun(out)


def say(run: ReviewedRun, number: int, verdict: str, queue: str = "teach", model: str = "tiles") -> Answer:
    image = run.image(number)
    return Answer(
        sha256=image.sha256, path=image.path, run=run.name, queue=queue, verdict=verdict, model=model, version="3"
    )  # type: ignore[arg-type]


def test_good_images_of_the_teach_queue_train_and_bad_ones_do_not(reviewed: ReviewedRun) -> None:
    answers = [
        say(reviewed, 0, "good"),
        say(reviewed, 1, "defect"),
        say(reviewed, 2, "good"),
        say(reviewed, 2, "defect"),  # second thoughts
        say(reviewed, 3, "unusable"),
        say(reviewed, 4, "good"),
        say(reviewed, 4, "good", "audit"),  # judges
        say(reviewed, 5, "good", model="other"),
        say(reviewed, 6, "good"),
        say(reviewed, 6, "unsure"),
    ]
    taught, bad = taught_images("tiles", answers)
    assert {file.path.name for file in taught} == {reviewed.image(number).path for number in (0, 6)}
    assert len({file.relative for file in taught} | {"000.png"}) == 3
    assert bad == {reviewed.sha256(number) for number in (1, 2, 3)}


def test_files_that_are_gone_or_changed_are_not_used(reviewed: ReviewedRun) -> None:
    answers = [say(reviewed, number, "good", "audit") for number in range(40)]
    Image.new("RGB", (40, 30), (1, 2, 3)).save(reviewed.folder / reviewed.image(7).path)
    (reviewed.folder / reviewed.image(8).path).unlink()
    (audit,) = audits_of("tiles", answers)
    assert (audit.gone, len(audit.images)) == (2, 38)
    assert audits_of("other", answers) == []
    assert not taught_images("tiles", [say(reviewed, 7, "good")])[0]


def test_weights_are_the_images_that_an_answer_stands_for(reviewed: ReviewedRun) -> None:
    order = reviewed.order("audit").tolist()
    answers = [say(reviewed, number, "good", "audit") for number in order[:20]]
    (audit,) = audits_of("tiles", answers)
    assert sum(each.weight for each in audit.images) == pytest.approx(len(reviewed.numbers))
    assert sum(each.in_sample for each in audit.images) >= 5


def test_a_run_whose_output_is_gone_is_named(reviewed: ReviewedRun, caplog: pytest.LogCaptureFixture) -> None:
    answer = say(reviewed, 0, "good")
    (reviewed.out / "run.json").unlink()
    assert taught_images("tiles", [answer]) == ([], frozenset())
    assert "are not used" in caplog.text


def test_answers_about_an_earlier_run_in_the_same_folder_are_no_audit_of_this_one(reviewed: ReviewedRun) -> None:
    answers = [say(reviewed, number, "good", "audit") for number in range(10)]
    run = json.loads((reviewed.out / "run.json").read_text())
    (reviewed.out / "run.json").write_text(json.dumps(run | {"started": "2999-01-01"}))
    again = ReviewedRun(reviewed.out)
    assert sum(each.answered for each in again.count_strata(answers)) == 0
    assert len(list(again.pending("audit", answers))) == len(again.numbers)
    assert len(taught_images("tiles", [say(again, 0, "good")])[0]) == 1


def test_copies_are_asked_about_once(reviewed: ReviewedRun) -> None:
    rows = pq.read_table(reviewed.out / "results.parquet").to_pylist()
    rows[5]["sha256"] = rows[4]["sha256"]
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), reviewed.out / "results.parquet")
    assert len(ReviewedRun(reviewed.out).numbers) == len(reviewed.numbers) - 1


def test_the_report_says_what_people_answered(reviewed: ReviewedRun) -> None:
    from pipelines.report.folder import REVIEW, ReviewFacts, read_record
    from pipelines.report.sentences import describe_review
    from pipelines.review.answers import answers_file
    from pipelines.review.summary import note_answers

    assert not note_answers(reviewed.out)
    answers = Answers(answers_file())
    for place, number in enumerate(reviewed.order("audit").tolist()[:20]):
        answers.add(say(reviewed, number, "defect" if reviewed.image(number).flagged else "good", "audit"))
        if place < 3:
            answers.add(say(reviewed, number, "good", "audit"))
    assert note_answers(reviewed.out)
    facts = read_record(reviewed.out / REVIEW, ReviewFacts)
    assert facts is not None
    told = dict(describe_review(facts))
    assert sum(facts.queues["audit"].values()) == 20
    assert "95 % interval" in told["Defects found"]
    assert told["For a narrower interval"].startswith("answer about")
    assert f"of {facts.pairs} pairs" in told["Agreement"]
    assert facts.pairs == 3


def test_recalibration_says_how_many_answers_it_takes(trained, tmp_path: Path, monkeypatch) -> None:
    import shutil

    from pipelines.review.answers import answers_file
    from pipelines.score import score_folder
    from pipelines.training.recalibrate import recalibrate

    shutil.copytree(trained.home, tmp_path / "home")
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    with pytest.raises(ReviewError, match="no run of tiles was audited"):
        recalibrate("tiles")
    (tmp_path / "day").mkdir()
    for path in sorted(trained.images.iterdir()):  # as good as the training images, but none of them
        Image.open(path).point(lambda value: min(255, value + 1)).save(tmp_path / "day" / f"{path.stem}.png")
    score_folder(tmp_path / "day", "tiles@champion", tmp_path / "out")
    run = ReviewedRun(tmp_path / "out")
    answers = Answers(answers_file())
    order = run.order("audit").tolist()
    for number in order[:10]:
        answers.add(say(run, number, "good", "audit"))
    with pytest.raises(ReviewError, match=r"answer about \d+ more images of the queue `audit`"):
        recalibrate("tiles", false_alarms=0.05)
    for number in order[10:]:
        answers.add(say(run, number, "good", "audit"))
    made = recalibrate("tiles", false_alarms=0.05)
    assert (made.version.ref, made.promoted, made.images) == ("tiles/2", True, len(order))
    assert made.rate == 0.05
    again = score_folder(tmp_path / "day", "tiles@champion", tmp_path / "out2")
    assert again.threshold == pytest.approx(made.threshold)
    card = (tmp_path / "home" / "models").glob("*/card.md")
    assert any("## Recalibrated" in path.read_text() for path in card)
