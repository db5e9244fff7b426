"""The promotion trail: one registered-model tag for each move of an alias, only ever added.

The tags belong to the model and not to its versions, so that deleting a version leaves its history. A key starts with
the entry's number, hence the order, and goes on with random digits, so that two machines that promote at the same
moment both leave their entry. PostgreSQL holds 5000 characters in such a tag, so a longer entry is kept in parts.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from pipelines.registry.records import TrailEntry

KEY = re.compile(r"trail\.(?P<number>\d+)\.(?P<random>[0-9a-f]+)\.(?P<part>\d+)\.(?P<count>\d+)")
PART = 4900  # characters of an entry in one tag

ACTOR_VARIABLE = "KINTSUGI_ACTOR"
"""Environment variable that names who moves aliases, such as a flow run; user@host when it is not set."""


def write_entry(entry: TrailEntry, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that add an entry.

    Args:
        entry: What is to be recorded.
        tags: The model's tags so far; they give the entry its number.

    Returns:
        One tag, or several for a long entry, to be set in this order.
    """
    text = json.dumps({**asdict(entry), "when": entry.when.isoformat()}, default=_plain)
    number = 1 + max((int(match["number"]) for match in map(KEY.fullmatch, tags) if match), default=0)
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    stem = f"trail.{number:06d}.{secrets.token_hex(4)}"
    return {f"{stem}.{part}.{len(parts)}": value for part, value in enumerate(parts)}


def read_entries(tags: Mapping[str, str]) -> list[TrailEntry]:
    """The entries in a model's tags, oldest first. One whose writer was killed between its parts is left out."""
    parts: dict[tuple[int, str, int], dict[int, str]] = {}
    for key, value in tags.items():
        if match := KEY.fullmatch(key):
            entry = (int(match["number"]), match["random"], int(match["count"]))
            parts.setdefault(entry, {})[int(match["part"])] = value
    entries = []
    for (number, _, count), found in parts.items():
        if len(found) == count:
            fields = json.loads("".join(found[part] for part in range(count)))
            entries.append((number, TrailEntry(**{**fields, "when": datetime.fromisoformat(fields["when"])})))
    return [entry for _, entry in sorted(entries, key=lambda item: (item[0], item[1].when))]


def actor() -> str:
    """Who is moving aliases: `KINTSUGI_ACTOR` where it is set, else user@host."""
    named = os.environ.get(ACTOR_VARIABLE)
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _plain(value: object) -> float | str:
    """What JSON can hold of a figure: numpy's numbers as floats, anything else as text."""
    try:
        return float(value)  # type: ignore[arg-type]  # asking forgiveness
    except (TypeError, ValueError):
        return str(value)
