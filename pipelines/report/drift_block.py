"""What has changed since calibration, laid out for the report: each fact of the images beside that of good ones."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.anomaly.drift import LEVEL, Drift, Moved, name_change
from pipelines.anomaly.image_facts import FACTS
from pipelines.report import words
from pipelines.report.folder import AgainstFacts, DriftFacts

WIDTH = 240  # of a chart, in units of its drawing
MARGIN = 6
SHOWN = 6  # facts that have changed


@dataclass(frozen=True, slots=True)
class Box:
    """Quantiles as places on a chart: from 5 to 95 % a line, from 25 to 75 % a box, a mark at the median."""

    low: float
    start: float
    middle: float
    end: float
    high: float


@dataclass(frozen=True, slots=True)
class ChangedFact:
    """One fact that has changed."""

    title: str
    sentence: str
    calibration: Box
    folder: Box
    values: str


@dataclass(frozen=True, slots=True)
class DriftBlock:
    """The block.

    Attributes:
        why: What the images are judged against, and why; empty where that needs no words.
        found: The test's finding, in a sentence.
        facts: What has changed, the most changed first.
        same: Titles of the facts that have not.
        advice: What to look at, and what else may be done.
        flagged: Images that each of the two verdicts flags, where there are both.
        told: Warnings of the run that the block says in more detail.
    """

    why: str
    found: str
    facts: tuple[ChangedFact, ...]
    same: tuple[str, ...]
    advice: tuple[str, ...]
    flagged: dict[str, int]
    told: tuple[str, ...]


def lay_out_drift(drift: DriftFacts | None, against: AgainstFacts | None, images: int) -> DriftBlock | None:
    """Lay the block out; None where the images are like those of calibration, and are judged by it."""
    drifted = drift is not None and drift.drifted
    if not drifted and (against is None or not against.why):
        return None
    changed, same, advice, told, found = list[ChangedFact](), list[str](), list[str](), list[str](), ""
    if drift is not None and drifted:
        moved = tuple(Moved(**each.model_dump()) for each in drift.statistics)
        tested = drift.images or images
        whole = Drift(drift.p_value, drift.drifted, drift.moved, drift.effect, tested, moved, drift.flagged_good)
        told.append(str(whole))
        titles = {fact.name: fact.title for fact in FACTS}
        changed = [_lay_out(titles[each.name], each) for each in whole.changed[:SHOWN]]
        same = [titles[each.name] for each in moved if each.name in titles and not each.drifted]
        found = f"The images are not like the calibration images{_say_what(whole)}"
        advice = [
            f"{whole.advice}.",
            "If this is how good images look from now on, train on newer good images: the thresholds follow.",
        ]
        if moved and not whole.moves_verdicts:
            advice.insert(0, "Apart from the highest scores, images score as before, so the verdicts do not change.")
        elif whole.flagged_good is not None:
            advice.insert(0, f"{whole.consequence}.")
    if against is not None and against.why:
        told.append(f"{against.why[0].upper()}{against.why[1:]}")
    return DriftBlock(
        why=f"{told[-1]}." if against is not None and against.why else "",
        found=found,
        facts=tuple(changed),
        same=tuple(same),
        advice=tuple(advice),
        flagged=dict(against.flagged) if against else {},
        told=tuple(told),
    )


def _say_what(drift: Drift) -> str:
    """What follows "the images are not like the calibration images"; a colon where facts are shown below."""
    if drift.changed:
        return ":"
    if drift.p_value > LEVEL:  # only the share of good images above the threshold tells
        return "."
    return f": {drift.moved} is {name_change(drift.moved, drift.effect)}."


def _lay_out(title: str, moved: Moved) -> ChangedFact:
    ends = (*moved.calibration, *moved.batch)
    low, high = min(ends), max(ends)
    step = (WIDTH - 2 * MARGIN) / (high - low) if high > low else 0.0

    def box(quantiles: tuple[float, ...]) -> Box:
        return Box(*(round(MARGIN + (value - low) * step, 1) for value in quantiles))

    sentence = str(moved)
    usual, here = (words.format_number(each[len(each) // 2], 3) for each in (moved.calibration, moved.batch))
    return ChangedFact(
        title=title,
        sentence=f"{sentence[0].upper()}{sentence[1:]}.",
        calibration=box(moved.calibration),
        folder=box(moved.batch),
        values=f"median {here}, in calibration {usual}",
    )
