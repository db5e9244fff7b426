"""Options of a run are refused as soon as they are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.batch.options import RestoreOptions, ScoreOptions
from pipelines.errors import CalibrationError, FolderError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"false_alarms": 2.0}, "not between 0 and 1"),
        ({"false_discoveries": 0.1, "budget": 3}, "a rule of its own"),
        ({"groups": True, "budget": 3}, "with groups"),
        ({"calibration": Path("nowhere.json")}, "the calibration file nowhere.json does not exist"),
    ],
)
def test_rules_that_no_model_can_keep_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        ScoreOptions(**wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"kind": "gif"}, "not an output format"), ({"samples": 65}, "from 0 to 64"), ({"bits": 7}, "from 8 to 16")],
)
def test_files_that_cannot_be_written_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(FolderError, match=says):
        RestoreOptions(**wrong)


def test_a_suffix_stands_for_its_kind() -> None:
    assert RestoreOptions(kind=".TIF").file_kind == "tiff"
