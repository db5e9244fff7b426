"""When a run over a folder is no longer business as usual: the rules of a job's `[alarm]`."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.anomaly.drift import Drift
from pipelines.base.percentages import percent
from pipelines.jobfile.tables import AlarmTable


def find_alarms(rule: AlarmTable | None, counts: Mapping[str, int], drift: Drift | None = None) -> list[str]:
    """List what gives rise to an alarm, a sentence for each.

    Args:
        rule: Of the job; None: no alarms.
        counts: Images that are `ok`, of which so many `flagged`, and files that `failed`.
        drift: What the drift check says.
    """
    if rule is None:
        return []
    found = []
    ok, files = counts["ok"], counts["ok"] + counts["failed"]
    shares = (("flagged", "images look abnormal", ok), ("failed", "files could not be read", files))
    for name, what, total in shares:
        limit, count = getattr(rule, name), counts.get(name, 0)
        if limit is not None and total >= rule.fewest and count > limit * total:
            found.append(f"{count} of {total} {what} ({percent(count / total)}), more than {percent(limit)}")
    if rule.drift and drift is not None and drift.drifted:
        found.append(str(drift))
    return found
