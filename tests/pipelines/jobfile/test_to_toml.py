"""Values as TOML text: read again by Python's own reader."""

from __future__ import annotations

import tomllib

import pytest

from pipelines.jobfile.job import to_toml


@pytest.mark.parametrize(
    "value",
    ["plain", 'a "b" \\ c', "größe \U0001f600", "DEL \x7f, tab \t, line\n", "", True, 7, 0.25, ["a", "b"], [256, 320]],
)
def test_a_value_is_read_again_as_it_was(value: object) -> None:
    assert tomllib.loads(f"x = {to_toml(value)}") == {"x": value}
