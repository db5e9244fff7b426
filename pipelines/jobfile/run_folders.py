"""Names of the folders that a schedule's runs write into."""

from __future__ import annotations

import re
from pathlib import Path

OWN = re.compile(r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)-(?P<what>.+)")  # folders that a schedule names


def schedule_of(run: Path) -> tuple[Path, str] | None:
    """What folders of a schedule's runs have in common: where they are, and what they are; None for other folders.

    >>> schedule_of(Path("/reports/2026-11-21T06-00-00Z-score-inbox"))
    (PosixPath('/reports'), 'score-inbox')
    """
    own = OWN.fullmatch(run.name)
    return (run.parent, own["what"]) if own else None
