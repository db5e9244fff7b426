"""Text for people: on one line, in one direction, and never a formula."""

from __future__ import annotations

import doctest

import pyarrow as pa
import pytest

from pipelines.base import safe_text
from pipelines.base.safe_text import for_spreadsheets, printable


def test_characters_that_hide_or_turn_text_are_spelled_out() -> None:
    assert printable("a\nb\u2028c\u202egnp.exe\x00") == "a\\x0ab\\u2028c\\u202egnp.exe\\x00"
    assert printable("größe 日本 <b>&'\"") == "größe 日本 <b>&'\""


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a\nb.png", "a\\x0ab.png"),
        ("\x00.png", "\\x00.png"),
        ("=1+1.png", "./=1+1.png"),
        ("-1.png", "./-1.png"),
        ("@sum.png", "./@sum.png"),
        ("\t=1.png", "\\x09=1.png"),
        ("\u202e=1.png", "\\u202e=1.png"),
        ("a=1, b-2.png", "a=1, b-2.png"),
        ("größe/日本.png", "größe/日本.png"),
    ],
)
def test_names_in_a_spreadsheet(name: str, safe: str) -> None:
    """One at a time, since a table without any such name takes another way."""
    table = pa.table(
        {"path": [name], "error": [None], "score": [1.0]},
        pa.schema({"path": "string", "error": "string", "score": "double"}),
    )
    assert for_spreadsheets(table)["path"].to_pylist() == [safe]


def test_other_text_gets_an_apostrophe_and_what_is_missing_stays_missing() -> None:
    table = pa.table({"path": ["a", "b"], "error": ["=1", None], "score": [-1.0, 2.0]})
    safe = for_spreadsheets(table)
    assert safe.to_pylist() == [
        {"path": "a", "error": "'=1", "score": -1.0},
        {"path": "b", "error": None, "score": 2.0},
    ]
    assert safe.schema == table.schema


def test_the_examples_in_the_documentation() -> None:
    assert doctest.testmod(safe_text) == (0, 4)
