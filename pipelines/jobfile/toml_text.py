"""Values of a job as TOML text."""

from __future__ import annotations

import json


def to_toml(value: object) -> str:
    """Write a value of a job as TOML, which JSON is but for DEL and for halves of characters."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
