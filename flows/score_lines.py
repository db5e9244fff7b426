"""The lines that the command line prints after scoring."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.base.percentages import promised
from pipelines.score import ScoreSummary


def describe_scores(summary: ScoreSummary) -> Iterator[str]:
    """Yield the lines: how many images look abnormal, by which rule, and what is known about its rate."""
    if not summary.ok:
        yield "no image could be scored"
        return
    if summary.threshold is None or summary.false_alarms is None:
        yield f"{summary.ok} of {summary.files} images scored, no verdicts: the model has no calibration"
        return
    one, which = summary.flagged == 1, f"{summary.flagged} of {summary.ok} images"
    if summary.against == "folder":
        yield f"{which} {'stands' if one else 'stand'} out from this folder ({_name_rule(summary)})"
        yield f"calibration would flag {summary.by_calibration}"
    else:
        yield f"{which} {'looks' if one else 'look'} abnormal ({_name_rule(summary)})"
    if not summary.claim.is_proved:
        for kind, text in summary.claim.describe(summary.false_alarms):
            yield f"{kind}: {text}"


def _name_rule(summary: ScoreSummary) -> str:
    assert summary.false_alarms is not None  # noqa: S101 - for the type checker
    if not summary.claim.holds:
        return f"threshold {summary.threshold:.4f}, for other images than these, so no false-alarm rate is known"
    rule = summary.rule or f"{summary.claim.is_what} false-alarm rate {promised(summary.false_alarms)}"
    which = "threshold of all other images" if summary.by_group else "threshold"
    is_what = "promised" if summary.claim.is_proved else "known"
    if summary.unpromised == summary.ok:
        rule = f"no rate {is_what} for their sub-folders"
    elif summary.by_group + summary.unpromised < summary.ok:
        rule += f", {which} {summary.threshold:.4f}"
    if 0 < summary.unpromised < summary.ok:
        rule += f", no rate {is_what} for {summary.unpromised} images of other sub-folders"
    return rule
