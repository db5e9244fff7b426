"""Answers of people about images, kept in one SQLite file: never lost, not even by kill -9, and never changed.

An answer that was withdrawn stays, with the time of that. Each has a key of its own, so that a page may send it again
after a break in the connection, and a CSV file may be imported twice.
"""

from __future__ import annotations

import csv
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pipelines.errors import ReviewError
from pipelines.settings import settings

Queue = Literal["teach", "audit", "restore"]
Verdict = Literal["good", "defect", "unusable", "unsure", "better", "worse", "same"]
OF_SCORES: tuple[Verdict, ...] = ("good", "defect", "unusable", "unsure")
OF_RESTORED: tuple[Verdict, ...] = ("better", "worse", "same", "unsure")
PATIENCE = 30  # seconds that a writer waits for another
_FORMAT = 1  # of the file; SQLite keeps it as `user_version`
_BYTE_ORDER_MARK = "utf-8-sig"  # Excel reads a CSV file as UTF-8 only with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one person says of one image.

    Attributes:
        sha256: Of the image's file: answers follow an image wherever it lies.
        path: Of the image, relative to the folder of its run.
        run: Output folder of the run that was looked at.
        queue: Why it was shown: "teach" chooses by score, "audit" by chance, "restore" shows restored images.
        verdict: The answer.
        defect: Name of the defect.
        place: Where it is, as shares of the image's sides: left, top, width, height.
        who: Who answered; empty where nobody says.
        probability: Of an audit, the chance that its first question is about this image; None in other queues.
        stratum: Of the audit.
        model: Name of the model of the run.
        version: Of that model.
        score: Of the image.
        at: When it was given, in UTC and ISO 8601.
        key: Of this answer alone.
        withdrawn: When it was taken back; None: it counts.
    """

    sha256: str
    path: str
    run: str
    queue: Queue
    verdict: Verdict
    defect: str | None = None
    place: tuple[float, float, float, float] | None = None
    who: str = ""
    probability: float | None = None
    stratum: int | None = None
    model: str | None = None
    version: str | None = None
    score: float | None = None
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    withdrawn: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no answer.

        Raises:
            ReviewError: The queue or the answer is not known, or the place lies outside the image.
        """
        known = OF_RESTORED if self.queue == "restore" else OF_SCORES
        if self.queue not in get_args(Queue):
            raise ReviewError(f"the queue is '{self.queue}': use {', '.join(get_args(Queue))}")
        if self.verdict not in known:
            raise ReviewError(f"the answer is '{self.verdict}': in the queue {self.queue} use {', '.join(known)}")
        if self.place is not None:
            left, top, width, height = self.place
            if not (0 <= left <= left + width <= 1.001 and 0 <= top <= top + height <= 1.001):
                raise ReviewError(f"the place is {self.place}: give left, top, width and height as shares of the image")


class Said(NamedTuple):
    """The part of an answer that progress and estimates need: a busy page reads all of a run's many times."""

    queue: Queue
    sha256: str
    verdict: Verdict
    at: str


_COLUMNS = tuple(each.name for each in fields(Answer))
_TYPES = {"probability": "REAL", "score": "REAL", "stratum": "INTEGER"}
_OPTIONAL = frozenset({"defect", "place", "probability", "stratum", "model", "version", "score", "withdrawn"})


def answers_file() -> Path:
    """Return where the answers of this user are kept: one file for all runs and models."""
    return settings().home / "answers.sqlite3"


class Answers:
    """The answers in one file, which several processes may use at a time."""

    def __init__(self, path: Path) -> None:
        """Open a file, or make it.

        Raises:
            ReviewError: It is no file of answers, or one of a later version.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found > _FORMAT:
                raise ReviewError(
                    f"{path} has format {found} and this version reads {_FORMAT}: install a newer version"
                )
            columns = ", ".join(
                f"{name} {_TYPES.get(name, 'TEXT')}{'' if name in _OPTIONAL else ' NOT NULL'}" for name in _COLUMNS
            )
            database.execute(
                f"CREATE TABLE IF NOT EXISTS answers (number INTEGER PRIMARY KEY, {columns}, UNIQUE (key))"
            )
            database.execute("CREATE INDEX IF NOT EXISTS of_images ON answers (sha256)")
            database.execute("CREATE INDEX IF NOT EXISTS of_runs ON answers (run, queue)")
            database.execute(f"PRAGMA user_version = {_FORMAT}")

    def add(self, answer: Answer) -> bool:
        """Keep an answer; it is on the disk when this returns.

        Returns:
            Whether it is new: one with its key may be there already.
        """
        return self._insert([answer]) == 1

    def withdraw(self, key: str) -> bool:
        """Take an answer back. Returns whether it counted until now."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._open() as database:
            done = database.execute("UPDATE answers SET withdrawn = ? WHERE key = ? AND withdrawn IS NULL", (now, key))
            return done.rowcount == 1

    def rename(self, who: str, other: str = "") -> int:
        """Replace a person's name in all answers, by default with nothing. Returns how many these were."""
        with self._open() as database:
            return database.execute("UPDATE answers SET who = ? WHERE who = ?", (other, who)).rowcount

    def of_run(self, run: str, queue: Queue | None = None) -> list[Answer]:
        """Read what counts of a run's answers, the oldest first."""
        asked = "run = ? AND (queue = ? OR ? IS NULL) AND withdrawn IS NULL"
        return list(self._read(asked, (run, queue, queue)))

    def said_of_run(self, run: str, queue: Queue | None = None) -> list[Said]:
        """Read what counts of a run's answers in short, the oldest first: many times faster than `of_run`."""
        query = (
            "SELECT queue, sha256, verdict, at FROM answers "
            "WHERE run = ? AND (queue = ? OR ? IS NULL) AND withdrawn IS NULL ORDER BY number"
        )
        with self._open() as database:
            return [Said(*row) for row in database.execute(query, (run, queue, queue))]

    def count_images(self) -> dict[str, int]:
        """Count the images with an answer that counts, by run."""
        query = "SELECT run, count(DISTINCT sha256) FROM answers WHERE withdrawn IS NULL GROUP BY run"
        with self._open() as database:
            return dict(database.execute(query).fetchall())

    def of_image(self, sha256: str) -> list[Answer]:
        """Read what counts of the answers about an image, the oldest first."""
        return list(self._read("sha256 = ? AND withdrawn IS NULL", (sha256,)))

    def every(self, *, withdrawn: bool = False) -> Iterator[Answer]:
        """Read all answers, the oldest first; those that were withdrawn only if asked."""
        return self._read("withdrawn IS NULL OR ?", (withdrawn,))

    def named(self, model: str | None, most: int) -> list[Answer]:
        """Read answers that name a defect, about images of one model's runs: the newest `most`, the newest first.

        An image counts once, by the last answer about it that is not "unsure".
        """
        last = (
            "SELECT max(number) FROM answers WHERE withdrawn IS NULL AND queue != 'restore' AND verdict != 'unsure' "
            "GROUP BY sha256"
        )
        asked = f"verdict = 'defect' AND defect IS NOT NULL AND model IS ? AND number IN ({last})"
        return list(self._read(asked, (model,)))[: -most - 1 : -1]

    def defects(self) -> list[str]:
        """List the names of defects that were given, the most frequent first."""
        query = (
            "SELECT defect FROM answers WHERE defect IS NOT NULL AND withdrawn IS NULL "
            "GROUP BY defect ORDER BY count(*) DESC, defect"
        )
        with self._open() as database:
            return [name for (name,) in database.execute(query)]

    def write_csv(self, path: Path) -> int:
        """Write all answers, those that were withdrawn as well. Returns how many."""
        count = 0
        with path.open("w", encoding=_BYTE_ORDER_MARK, newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
            writer.writerow(_COLUMNS)
            for answer in self.every(withdrawn=True):
                writer.writerow(_values(answer))
                count += 1
        return count

    def read_csv(self, path: Path) -> int:
        """Add the answers of a file that `write_csv` has written, and take back those that were taken back there.

        Of several answers about an image the one that was given last counts, wherever it was given.

        Returns:
            How many of them were new, or were taken back.

        Raises:
            ReviewError: It is no such file; the message names the line. Nothing of it is kept then.
        """
        found: list[Answer] = []
        with path.open(encoding=_BYTE_ORDER_MARK, newline="") as file:
            reader = csv.DictReader(file)
            if set(reader.fieldnames or ()) != set(_COLUMNS):
                raise ReviewError(f"{path} is not a file of answers: its first line must be {','.join(_COLUMNS)}")
            for line, row in enumerate(reader, start=2):
                try:
                    found.append(_parse({name: value or None for name, value in row.items()}))
                except (ReviewError, TypeError, ValueError) as error:
                    raise ReviewError(f"{path}, line {line}: {error}") from None
        count = self._insert(found)
        if count:
            self._sort()
        return count

    def _insert(self, answers: Sequence[Answer]) -> int:
        marks = ", ".join("?" * len(_COLUMNS))
        with self._open() as database:
            before = database.total_changes
            database.executemany(
                f"INSERT INTO answers ({', '.join(_COLUMNS)}) VALUES ({marks}) "  # noqa: S608 - our own names
                "ON CONFLICT (key) DO UPDATE SET withdrawn = excluded.withdrawn "
                "WHERE withdrawn IS NULL AND excluded.withdrawn IS NOT NULL",
                map(_values, answers),
            )
            return database.total_changes - before

    def _sort(self) -> None:
        """Number the answers by when they were given: questions go by numbers, which is many times faster."""
        columns = ", ".join(_COLUMNS)
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # nobody answers between the copy and its return
            sort = f"CREATE TEMP TABLE sorted AS SELECT {columns} FROM answers ORDER BY julianday(at), number"  # noqa: S608
            database.execute(sort)
            database.execute("DELETE FROM answers")
            database.execute(f"INSERT INTO answers ({columns}) SELECT {columns} FROM sorted ORDER BY rowid")  # noqa: S608
            database.execute("DROP TABLE sorted")

    def _read(self, condition: str, values: Sequence[Any]) -> Iterator[Answer]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM answers WHERE {condition} ORDER BY number"  # noqa: S608 - as above
        with self._open() as database:
            rows = database.execute(query, values).fetchall()
        return (_parse(dict(zip(_COLUMNS, row, strict=True))) for row in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction: all of it is on the disk at its end, or nothing."""
        try:
            database = sqlite3.connect(self.path, timeout=PATIENCE)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.DatabaseError as error:
            raise ReviewError(
                f"{self.path} cannot be used ({error}): check free space and rights, or restore it from the backup"
            ) from error


def _values(answer: Answer) -> list[Any]:
    row = asdict(answer)
    row["place"] = None if answer.place is None else " ".join(f"{each:.6g}" for each in answer.place)
    return [row[name] for name in _COLUMNS]


def _parse(row: dict[str, Any]) -> Answer:
    place = row["place"] and tuple(map(float, row["place"].split()))
    if place and len(place) != 4:
        raise ReviewError(f"the place is {row['place']}: it takes four numbers")
    numbers = {name: None if row[name] is None else float(row[name]) for name in ("probability", "score")}
    stratum = None if row["stratum"] is None else int(row["stratum"])
    return Answer(**(row | {"place": place, "who": row["who"] or "", "stratum": stratum} | numbers))
