"""New thresholds for the champion from audited images, without training: a version of its own with the same network."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipelines.anomaly.calibration import Calibration, check_rate
from pipelines.base.percentages import percent, promised
from pipelines.errors import ModelError, ReviewError
from pipelines.images import ImageFile
from pipelines.models.model_file import CARD_FILE, MODEL_FILE, ModelFile
from pipelines.models.session import Session
from pipelines.registry.records import CHAMPION, COMMIT, DATA, DECISION, JOB, PARENT, RECALIBRATED, WHY, Version
from pipelines.registry.search import job_of
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun
from pipelines.review.uses import AuditedRun, newest_audit, read_answers
from pipelines.settings import settings
from pipelines.training.calibrate import calibrate, score_files
from pipelines.training.promotion import Decision

log = logging.getLogger(__name__)
FEWEST = 19  # good images: they can tell 5 %


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """A version with new thresholds.

    Attributes:
        version: The version.
        promoted: Whether it is the champion now.
        reason: Why, or why not.
        images: Good images that it was calibrated on.
        rate: False-alarm rate that it is asked for by default.
        threshold: For that rate.
        flagged: Share of the good images of the audited run above the new threshold, and
        flagged_before: above the old one: estimates from all answers of the audit.
    """

    version: Version
    promoted: bool
    reason: str
    images: int
    rate: float
    threshold: float
    flagged: float
    flagged_before: float


def recalibrate(name: str, *, false_alarms: float | None = None) -> Recalibrated:
    """Calibrate the champion of a name on images that the audit of its newest audited run has found good.

    The new thresholds rest on these images alone. They are a plain random sample of the run, without images that the
    champion was trained on, so that the rate is promised for good images like them. The version is promoted unless the
    job's rule is "never".

    Args:
        name: Of the model in the registry.
        false_alarms: Rate asked, in (0, 1); by default that of the champion.

    Raises:
        ReviewError: The audits have too few answers; the message says how many more it takes.
        ModelError: There is no champion of that name, or it gives no scores.
    """
    registry = Registry()
    champion = registry.get(name, CHAMPION)
    folder = registry.fetch(champion)
    model = ModelFile(folder / MODEL_FILE, champion.sha256, champion.ref).registered_as(
        ref=champion.ref, name=name, version=str(champion.version)
    )
    before = model.calibration()
    if before is None:
        raise ModelError(f"{champion.ref} has no thresholds: it is not an anomaly model")
    audit = newest_audit(name, read_answers())  # older runs may be of another light or camera
    if audit is None:
        raise ReviewError(
            f"no run of {name} was audited: score a folder, then answer the queue `audit` with `kintsugi review DIR`"
        )
    audit = audit.without(model.trained_on | model.answered)
    rate = before.default_false_alarms() if false_alarms is None else false_alarms
    sample = _sample(audit, rate, name)
    if before.groups:
        log.warning("thresholds of sub-folders are known as far as the audited run has the same sub-folders")
    with (
        tempfile.TemporaryDirectory(prefix="kintsugi-", ignore_cleanup_errors=True) as temporary,
        TrackedRun(name, run_name="recalibrate") as run,
    ):
        bundle = Path(temporary) / "model"
        shutil.copytree(folder, bundle, ignore=shutil.ignore_patterns(".*"))
        file = ModelFile(bundle / MODEL_FILE, champion.sha256, champion.ref)
        session = Session(file, device=settings().device, threads=settings().workers)
        calibration = calibrate(session, sample, rate)
        asked = calibration.default_false_alarms()
        threshold = calibration.threshold(asked)
        old = before.threshold(max(asked, before.smallest_rate))
        shares = _flagged(session, audit, (threshold, old))
        reason = f"the network of {champion.ref}, calibrated on {calibration.n} audited good images"
        _describe(bundle, champion, calibration, shares)
        promote = job_of(champion).get("promote.rule") != "never"
        decision = Decision(promote, reason, {"false_alarm_rate": shares[0], "champion_false_alarm_rate": shares[1]})
        run.params({"recalibrated": champion.ref, "images": calibration.n})
        kept = {key: value for key in (DATA, JOB, COMMIT) if (value := champion.tags.get(key))}
        version = registry.register(
            name,
            bundle,
            run_id=run.run_id,
            metrics=decision.figures,
            tags={DECISION: json.dumps(asdict(decision)), PARENT: champion.ref, WHY: RECALIBRATED, **kept},
        )
    move = registry.promote if promote else registry.challenge
    version = move(name, version.version, reason=reason, figures=decision.figures)
    return Recalibrated(
        version, promote, reason if promote else "the job's rule is 'never'", calibration.n, asked, threshold, *shares
    )


def _sample(audit: AuditedRun, rate: float, name: str) -> list[ImageFile]:
    """The good images of the audit's plain random sample.

    Raises:
        ReviewError: There are too few of them.
    """
    check_rate(rate)
    found = [each.file for each in audit.images if each.in_sample and not each.is_defect]
    needed = max(FEWEST, math.ceil(1 / rate - 1e-9) - 1)
    if len(found) < needed:
        more = audit.answers_for(needed) - sum(each.answered for each in audit.strata) - audit.undecided
        lost = f" ({audit.gone} more are gone, were changed, or trained the model)" if audit.gone else ""
        raise ReviewError(
            f"the newest audit of {name} gives {len(found)} good images by chance alone{lost}, and a false-alarm rate "
            f"of {promised(rate)} takes {needed}: answer about {max(1, more)} more images of the queue "
            f"`audit` (kintsugi review {audit.run.out}), or ask for a higher rate with --false-alarms"
        )
    if audit.gone:
        log.warning(
            "%d audited images of %s are gone, were changed, or trained the model: left out",
            audit.gone, audit.run.out,
        )  # fmt: skip
    if audit.undecided > len(audit.images) / 20:
        log.warning(
            "%d audited images of %s have no clear answer: if they are good, the rate will be higher than "
            "promised", audit.undecided, audit.run.out,
        )  # fmt: skip
    return found


def _flagged(session: Session, audit: AuditedRun, thresholds: tuple[float, float]) -> tuple[float, float]:
    """The share of the audited run's good images above each of two thresholds, by all answers and their weights."""
    good = [each for each in audit.images if not each.is_defect]
    scores = score_files(session, [each.file for each in good])
    kept = [each for each in good if each.sha256 in scores]
    values, weights = np.array([scores[each.sha256] for each in kept]), np.array([each.weight for each in kept])
    low, high = (float(np.average(values > threshold, weights=weights)) for threshold in thresholds)
    return low, high


def _describe(
    bundle: Path,
    champion: Version,
    calibration: Calibration,
    shares: tuple[float, float],
) -> None:
    """Add to the card what the thresholds rest on now."""
    rate = calibration.default_false_alarms()
    lines = [
        "",
        "## Recalibrated",
        "",
        f"On {datetime.now(UTC):%Y-%m-%d}, from {champion.ref}: the network is the same, and all thresholds are new.",
        "",
        f"- n = {calibration.n} good images, a plain random sample of an audited run",
        f"- smallest false-alarm rate that they can tell: {promised(calibration.smallest_rate)}; {calibration.is_what} "
        f"{promised(rate)}, threshold {calibration.threshold(rate):.4f}",
        *(f"- {key}: {words}" for key, words in calibration.describe(rate)),
        f"- of the good images of this run, about {percent(shares[0])} lie above the threshold, and "
        f"{percent(shares[1])} above the one before (by all answers of the audits)",
        "",
    ]
    card = bundle / CARD_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    card.write_text(text + "\n".join(lines), encoding="utf-8")
