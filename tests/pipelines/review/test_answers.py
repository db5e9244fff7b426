"""Answers are never lost: not by a kill, not by two writers, not on the way through a CSV file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import ReviewError
from pipelines.review.answers import Answer, Answers

FULL = Answer(
    sha256="ab" * 32, path='odd, "name"\n=1.png', run="/reports/2026-12-02", queue="audit", verdict="defect",
    defect="scratch, deep", place=(0.1, 0.25, 0.5, 0.125), who="Ana", probability=0.35, stratum=1, model="tiles",
    version="3", score=2.5,
)  # fmt: skip


def answer(number: int, **changes: object) -> Answer:
    plain = Answer(sha256=f"{number:064x}", path=f"{number}.png", run="run", queue="teach", verdict="good")
    return replace(plain, **changes)


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(tmp_path / "home" / "answers.sqlite3")


def test_an_answer_comes_back_as_it_was_given(answers: Answers) -> None:
    assert answers.add(FULL)
    assert answers.of_image(FULL.sha256) == [FULL]
    assert Answers(answers.path).of_run(FULL.run, "audit") == [FULL]
    assert answers.of_run(FULL.run, "teach") == []
    assert answers.of_run("another") == []


def test_an_answer_that_is_sent_again_counts_once(answers: Answers) -> None:
    assert answers.add(FULL)
    assert not answers.add(replace(FULL, verdict="good", defect=None))
    assert answers.of_image(FULL.sha256) == [FULL]


def test_an_answer_that_is_taken_back_counts_no_more_and_stays(answers: Answers) -> None:
    answers.add(FULL)
    assert answers.withdraw(FULL.key)
    assert not answers.withdraw(FULL.key)
    assert answers.of_image(FULL.sha256) == []
    assert list(answers.every()) == []
    (kept,) = answers.every(withdrawn=True)
    assert replace(kept, withdrawn=None) == FULL
    assert kept.withdrawn is not None


def test_a_file_of_answers_can_be_written_and_read_twice(answers: Answers, tmp_path: Path) -> None:
    every = [FULL, answer(1), answer(2, who="\N{GREEK SMALL LETTER ALPHA}"), answer(3, queue="restore", verdict="same")]
    for each in every:
        answers.add(each)
    answers.withdraw(every[1].key)
    assert answers.write_csv(tmp_path / "answers.csv") == 4
    other = Answers(tmp_path / "other.sqlite3")
    assert (other.read_csv(tmp_path / "answers.csv"), other.read_csv(tmp_path / "answers.csv")) == (4, 0)
    assert list(other.every(withdrawn=True)) == list(answers.every(withdrawn=True))


def test_the_answer_that_was_given_last_counts_wherever_it_was_given(answers: Answers, tmp_path: Path) -> None:
    old = replace(FULL, key="old", verdict="defect", at="2026-01-01T00:00:00.000+00:00")
    new = replace(FULL, key="new", verdict="good", defect=None, at="2026-02-01T00:00:00.000+00:00")
    other = Answers(tmp_path / "other.sqlite3")
    answers.add(new)
    other.add(old)
    other.write_csv(tmp_path / "answers.csv")
    assert answers.read_csv(tmp_path / "answers.csv") == 1
    assert list(answers.every()) == [old, new]
    assert [each.verdict for each in answers.said_of_run(FULL.run)] == ["defect", "good"]


def test_an_answer_that_was_taken_back_elsewhere_is_taken_back_here(answers: Answers, tmp_path: Path) -> None:
    other = Answers(tmp_path / "other.sqlite3")
    for each in (answers, other):
        each.add(FULL)
    other.withdraw(FULL.key)
    other.write_csv(tmp_path / "answers.csv")
    assert (answers.read_csv(tmp_path / "answers.csv"), answers.read_csv(tmp_path / "answers.csv")) == (1, 0)
    assert list(answers.every()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "first line"), (None, "line 3: the answer is 'perhaps'"), ("", "first line")],
)
def test_a_file_that_is_damaged_adds_nothing(answers: Answers, tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "answers.csv"
    if text is None:
        source = Answers(tmp_path / "source.sqlite3")
        source.add(answer(1))
        source.add(answer(2))
        source.write_csv(path)
        lines = path.read_text("utf-8-sig").splitlines(keepends=True)
        text = "".join([*lines[:2], lines[2].replace('"good"', '"perhaps"')])
    path.write_text(text, "utf-8-sig")
    with pytest.raises(ReviewError, match=message):
        answers.read_csv(path)
    assert list(answers.every()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "better"}, "in the queue teach use good"),
        ({"queue": "other"}, "the queue is 'other'"),
        ({"place": (0.5, 0.5, 0.6, 0.1)}, "shares of the image"),
    ],
)
def test_what_is_no_answer_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ReviewError, match=message):
        answer(1, **changes)


def test_names_of_people_can_be_removed_and_names_of_defects_are_known(answers: Answers) -> None:
    for number, name in enumerate(["dent", "scratch", "scratch"]):
        answers.add(answer(number, verdict="defect", defect=name, who="Ana"))
    assert answers.defects() == ["scratch", "dent"]
    assert answers.rename("Ana") == 3
    assert {each.who for each in answers.every()} == {""}


WRITER = """
    import sys
    from pathlib import Path
    from pipelines.review.answers import Answer, Answers
    answers, start = Answers(Path(sys.argv[1])), int(sys.argv[2])
    for number in range(start, start + int(sys.argv[3])):
        answers.add(Answer(sha256=f"{number:064x}", path="x", run="run", queue="teach", verdict="good"))
        print(number, flush=True)
"""


def write_from(path: Path, start: int, count: int) -> subprocess.Popen[str]:
    code = textwrap.dedent(WRITER)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(start), str(count)], stdout=subprocess.PIPE, text=True
    )


def test_writers_at_once_lose_nothing(answers: Answers) -> None:
    writers = [write_from(answers.path, 1000 * number, 50) for number in range(3)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert len({each.sha256 for each in answers.every()}) == 150


def test_what_was_confirmed_before_a_kill_is_there(answers: Answers) -> None:
    with write_from(answers.path, 0, 10**6) as writer:
        assert writer.stdout is not None
        confirmed = [int(writer.stdout.readline()) for _ in range(40)]
        os.kill(writer.pid, signal.SIGKILL)
        confirmed += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    there = {each.sha256 for each in answers.every()}
    assert {f"{number:064x}" for number in confirmed} <= there
    assert len(there) <= len(confirmed) + 1


def test_files_of_others_are_not_taken_for_answers(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but some text that is long enough")
    with pytest.raises(ReviewError, match="cannot be used"):
        Answers(tmp_path / "text")
    later = tmp_path / "later.sqlite3"
    with sqlite3.connect(later) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ReviewError, match="has format 9"):
        Answers(later)
