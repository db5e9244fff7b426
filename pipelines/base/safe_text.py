"""Text for people: counts, and names made safe to read (on one line, in one direction, and no formula)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# Characters that would break a line or turn the reading direction of what follows: a name could pass for another one.
_UNPRINTABLE = "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]"
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet computes a cell that begins so


def printable(text: str) -> str:
    r"""Text with control and direction characters spelled out.

    >>> printable("a\u202egnp.exe")
    'a\\u202egnp.exe'
    """
    return re.sub(
        _UNPRINTABLE,
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}",
        text,
    )


def some_of(names: Sequence[str], most: int = 3, room: int = 100) -> str:
    """Return the first of some names, as examples in a line of text, as far as there is room.

    Args:
        names: At least one.
        most: Names, at most.
        room: Characters, about.

    >>> some_of(["a.png", "b.png"]), some_of(["a.png", "b.png", "c.png", "d.png"], most=2)
    ('a.png, b.png', 'a.png, b.png, ...')
    """
    shown: list[str] = []
    for name in map(printable, names[:most]):
        if shown and sum(map(len, shown)) + len(name) > room:
            break
        shown.append(name if len(name) <= room else f"...{name[3 - room :]}")
    return ", ".join(shown) + ", ..." * (len(names) > len(shown))


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "file"), plural(12000, "file")
    ('1 file', '12,000 files')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def for_spreadsheets(table: pa.Table) -> pa.Table:
    """A table whose text no spreadsheet tears apart or computes.

    Control and direction characters are spelled out. In front of what would be a formula stands an apostrophe, or for
    the column `path` a "./", with which it still names the same file.
    """
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if (
            pa.types.is_string(field.type)
            and pc.any(pc.match_substring_regex(column, f"^[=+@-]|{_UNPRINTABLE}")).as_py()
        ):
            prefix = "./" if field.name == "path" else "'"
            safe = [None if text is None else _no_formula(printable(text), prefix) for text in column.to_pylist()]
            table = table.set_column(index, field, pa.array(safe, field.type))
    return table


def _no_formula(text: str, prefix: str) -> str:
    return prefix + text if text.startswith(_FORMULA) else text


def one_line(text: object, *, limit: int = 160) -> str:
    r"""Make anything fit for a table cell: one line, printable, not too long.

    >>> one_line("two\nlines")
    'two lines'
    """
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."
