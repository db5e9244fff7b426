"""Messages on problems of a job file: each names the key, its value and the next step."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

GONE = {
    "model.pooling": "scores are pooled over a small and a large area, and the larger counts; leave it out",
    "model.aligned": "every place is standardised, as far as places differ; leave it out",
    "model.smooth": "each expert looks at features in its own way ('model.experts'); leave it out",
    "model.stride_weights": "experts are weighed by synthetic defects; leave it out",
}
"""Keys of earlier versions, and their replacements."""


def explain(error: ValidationError, root: type[BaseModel], path: Path) -> list[str]:
    """Return a line for each problem.

    Args:
        error: The problems of the document.
        root: The record of the whole file.
        path: The file.
    """
    lines = []
    for problem in error.errors():
        location = _fields(root, problem["loc"])
        key = ".".join(location)
        detail = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "literal_error":  # true and false as in the file
            detail = re.sub(r"True|False", lambda match: match[0].lower(), detail)
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_key(root, location, path))
        elif problem["type"] == "missing":
            lines.append(f"{path}: '{key}' is missing, and it is required")
        elif problem["type"] == "value_error" and isinstance(problem["input"], dict):  # a table's text names the keys
            lines += [f"{path}: {line}" for line in detail.splitlines()]
        else:
            if problem["type"] == "less_than" and problem["ctx"]["lt"] == 1:
                detail += ". 0.05 means 5 %"
            lines.append(f"{path}: '{key}'{_shown(problem['input'])}: {detail}")
    return list(dict.fromkeys(lines))


def unknown_key(root: type[BaseModel], location: tuple[str, ...], path: Path) -> str:
    """Return the message for an unknown key, with the key that was probably meant."""
    if (key := ".".join(location)) in GONE:
        return f"{path}: '{key}' is no longer a key of a job file: {GONE[key]}"
    record: Any = root
    for table in location[:-1]:
        record = record.model_fields[table].annotation
    known = [name for name in record.model_fields if name != "path"]
    elsewhere = [
        name for name in root.model_fields if location[-1] in _keys_of(root, name) and name not in location[:-1]
    ]
    if elsewhere:
        hint = f"it belongs below {' or '.join(f'[{name}]' for name in elsewhere)}"
    elif close := difflib.get_close_matches(location[-1], known, n=1):
        hint = f"did you mean '{close[0]}'?"
    else:
        hint = f"known keys: {', '.join(known)}"
    return f"{path}: '{key}' is not a key of a job file; {hint}"


def _keys_of(root: type[BaseModel], table: str) -> Collection[str]:
    """List the keys of a table of the job file; none where the name is a value's."""
    record = root.model_fields[table].annotation
    return record.model_fields if isinstance(record, type) and issubclass(record, BaseModel) else ()


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ""
    try:
        text = repr(value)
    except ValueError:  # Python does not print numbers of more than 4300 digits
        text = "a number of thousands of digits"
    return f" is {text}" if len(text) <= 100 else f" is {text[:97]}..."


def _fields(root: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """Return the part of a location that is in the job file: pydantic adds the types that it has tried."""
    record: Any = root
    known: list[str] = []
    for part in location:
        fields = getattr(record, "model_fields", None)
        if fields is None:
            break
        known.append(str(part))
        record = fields[part].annotation if part in fields else None
    return tuple(known)
