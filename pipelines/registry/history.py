"""A model's versions, the figures behind them and the moves of its champion: in words and units, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pipelines.anomaly.rate_claim import ASSUMPTION
from pipelines.base.percentages import percent, promised
from pipelines.registry.records import CHAMPIONS_FIGURE, COMMIT, DATA, OWN_FIGURE, PARENT, WHY
from pipelines.registry.search import job_of

if TYPE_CHECKING:
    from pipelines.registry.records import TrailEntry, Version

# By the keys of a training's figures, in the order in which they are told.
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "promised_rate": ("promised false alarms", lambda value: f"at most {promised(value)} of good images, on average"),
    "asked_rate": ("false alarms asked", lambda value: f"{promised(value)} of good images; not proved"),
    "false_alarm_rate": ("false alarms in the test", lambda value: f"{percent(value)} of the good test images"),
    "false_alarm_limit": ("by chance alone", lambda value: f"up to {percent(value)} of the good test images"),
    "assumed_false_alarm_limit": (
        "by chance alone",
        lambda value: f"up to {percent(value)} of the good test images, {ASSUMPTION}",
    ),
    "synthetic_auroc": (
        "synthetic defects",
        lambda value: f"a damaged image scores above a good one in {percent(value, 3)} of pairs (guessing: 50 %)",
    ),
    "audit_auroc": (
        "audited images",
        lambda value: f"a defective image scores above a good one in {percent(value, 3)} of pairs (guessing: 50 %)",
    ),
    "accuracy": ("classes", lambda value: f"right for {percent(value)} of the held-out images"),
    "images": (
        "test images",
        lambda value: f"{value:.0f} good ones that were not trained on, and damaged copies of them",
    ),
    "psnr": (
        "restored images",
        lambda value: f"PSNR {value:.2f} dB on held-out images, damaged as in training",
    ),
    "colour_psnr": (
        "coloured images",
        lambda value: f"PSNR {value:.2f} dB on held-out images, coloured from their luma",
    ),
    "dice": ("labelled images", lambda value: f"Dice {value:.3f} on held-out images (1: equal to their labels)"),
    "temperature": ("probabilities", lambda value: f"logits divided by {value:.2f}, learned on held-out images"),
    "held_out_images": ("held-out images", lambda value: f"{value:.0f} that were not trained on"),
    "difference": ("exported file", lambda value: f"within {percent(value)} of white of the trained network's values"),
    "steps": ("training", lambda value: f"{value:.0f} steps"),
    "seconds": ("training time", lambda value: f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"),
    "parity": ("exported file", lambda value: f"scores within {percent(value)} of the trained network's"),
}

_OF_JOB = "job: "  # before the labels of its keys, in comparisons


def figures_in_words(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Label and value of each figure of a training, those of the champion that it was measured against at the end.

    >>> figures_in_words(
    ...     {"challenger_promised_rate": 0.0625, "champion_false_alarm_rate": 0.0, "loss": 2.0}
    ... )[1:]
    [('champion then: false alarms in the test', '0 % of the good test images'), ('loss', '2')]
    """
    order = {f"{prefix}{key}": None for prefix in (OWN_FIGURE, "", CHAMPIONS_FIGURE) for key in _FIGURES}
    known = [key for key in order if key in figures]
    return [_in_words(key, figures[key]) for key in (*known, *sorted(figures.keys() - order.keys()))]


def _in_words(key: str, value: float) -> tuple[str, str]:
    plain = key.removeprefix(OWN_FIGURE).removeprefix(CHAMPIONS_FIGURE)
    if plain not in _FIGURES:
        return key.replace("_", " "), f"{value:.6g}"
    label, text = _FIGURES[plain]
    return (f"champion then: {label}" if key.startswith(CHAMPIONS_FIGURE) else label), text(value)


def describe_version(version: Version) -> Iterator[str]:
    """A registered version as lines for a terminal."""
    aliases = f" [{', '.join(version.aliases)}]" if version.aliases else ""
    yield f"{version.ref}{aliases}  {version.created:%Y-%m-%d %H:%M} UTC"
    yield f"    {version.summary}"
    facts = [*figures_in_words(version.metrics), *_what_to_know(version), *_lineage(version)]
    yield from (f"    {label:40} {text}" for label, text in facts)


def describe_comparison(first: Version, second: Version) -> Iterator[str]:
    """Two versions as lines for a terminal: what they share on one line, what differs below each other."""
    width = max(len(first.ref), len(second.ref))
    found = [_compared(first), _compared(second)]
    for label in dict.fromkeys((*found[0], *found[1])):
        of_job = label.startswith(_OF_JOB)
        one, other = (facts.get(label, "by default" if of_job else "-") for facts in found)
        if one == other:
            if not of_job:
                yield f"{label}: {one}"
            continue
        yield label
        yield from (f"    {version.ref:{width}}  {text}" for version, text in ((first, one), (second, other)))


def _compared(version: Version) -> dict[str, str]:
    """Every fact of a version by its label; figures of the champion that it met are of no use here."""
    own = {key: value for key, value in version.metrics.items() if not key.startswith(CHAMPIONS_FIGURE)}
    facts = {"registered": f"{version.created:%Y-%m-%d %H:%M} UTC", "called": ", ".join(version.aliases) or "-"}
    facts |= dict([*figures_in_words(own), *_lineage(version)])
    return facts | {f"{_OF_JOB}{key}": str(value) for key, value in job_of(version).items() if value is not None}


def _what_to_know(version: Version) -> Iterator[tuple[str, str]]:
    """What of a version's job changes what its figures and images mean."""
    job = job_of(version)
    if job.get("train.adversarial") is not None:
        asked = "training also asked that images pass for real: they are sharper, and fine detail may be made up"
        yield "sharp before faithful", asked
    if job.get("data.degraded") is not None:
        yield "clean twins never seen", "figures are of clean images, damaged as training imitated it"


def _lineage(version: Version) -> Iterator[tuple[str, str]]:
    """Where a version comes from."""
    if DATA in version.tags:
        yield "training images", f"fingerprint of their contents {version.tags[DATA][:16]}..."
    if COMMIT in version.tags:
        yield "repository of the job file", f"commit {version.tags[COMMIT][:16]}"
    if PARENT in version.tags:
        yield "champion then", version.tags[PARENT]
    if WHY in version.tags:
        yield "trained because", version.tags[WHY]
    yield "model file", f"sha256 {version.sha256[:16]}..."


def describe_move(entry: TrailEntry) -> str:
    """One move of an alias as a line for a terminal."""
    place = f" in place of version {entry.from_version}" if entry.from_version is not None else ""
    what = {"promote": "became champion", "rollback": "is champion again", "challenge": "became challenger"}
    reason = f": {entry.reason}" if entry.reason else ""
    moved = f"version {entry.to_version} {what.get(entry.action, entry.action)}{place}"
    return f"    {entry.when:%Y-%m-%d %H:%M} UTC  {moved}, by {entry.who}{reason}"
