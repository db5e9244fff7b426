"""Names of pieces: which piece an image shows, by its folder or by a pattern of file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipelines.errors import DataError

FOLDERS, FIELD = "folders", "{piece}"


def pattern_of(rule: str) -> re.Pattern[str]:
    """Return the pattern that finds the name of a piece in the name of an image without its suffix.

    `{piece}` ends at the next character of the pattern or at a "/". `*` is any text without "/", as short as possible.
    `?` is any character.

    Raises:
        ValueError: The rule is not a pattern of this form.

    >>> [
    ...     pattern_of("{piece}_*").fullmatch("p12_top_3")["piece"],
    ...     pattern_of("*_{piece}").fullmatch("top_3_p12")["piece"],
    ... ]
    ['p12', 'p12']
    """
    if rule.count(FIELD) != 1:
        raise ValueError(
            f'give "{FOLDERS}" (images in one folder show one piece), or a pattern of file names in which {FIELD} '
            f'stands for the name of the piece: "{FIELD}_*" finds p12 in p12_top.png'
        )
    if f"*{FIELD}" in rule or f"{FIELD}*" in rule:
        raise ValueError(
            f'write the character that separates the name of the piece from the rest: "{FIELD}_*", or "{FIELD}-*"'
        )
    before, after = rule.split(FIELD)
    next_to = {text for text in (before[-1:], after[:1]) if text and not text.isalnum() and text not in "*?"}
    wild = {"*": "[^/]*?", "?": "[^/]"}
    parts = ["".join(wild.get(letter) or re.escape(letter) for letter in text) for text in (before, after)]
    return re.compile(f"{parts[0]}(?P<piece>[^/{re.escape(''.join(sorted(next_to)))}]+){parts[1]}", re.DOTALL)


def pieces_of(names: Sequence[str], rule: str) -> list[str]:
    """Return the piece that each image shows.

    Args:
        names: Names of the images, relative to their folder.
        rule: "folders", or a pattern: see `pattern_of`. A pattern with a "/" is compared with the whole path.

    Raises:
        DataError: Some images are in no sub-folder, or do not fit the pattern.
    """
    if rule == FOLDERS:
        found = [name.rpartition("/")[0] for name in names]
        wrong, why = "lie in no sub-folder", "give each piece a folder"
    else:
        pattern = pattern_of(rule)
        bare = (PurePosixPath(name).with_suffix("") for name in names)
        fits = (pattern.fullmatch(str(path) if "/" in rule else path.name) for path in bare)
        found = [fit["piece"] if fit else "" for fit in fits]
        wrong, why = "do not fit it", "rename them, or give another pattern"
    if others := [name for name, piece in zip(names, found, strict=True) if not piece]:
        some = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        raise DataError(f"'data.group' is '{rule}', and {len(others)} of {len(names)} images {wrong} ({some}): {why}")
    return found
