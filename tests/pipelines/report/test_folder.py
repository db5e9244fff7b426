from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import FolderError
from pipelines.report.folder import Evaluation, Run, read_gallery, read_record


def test_missing_files_are_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "run.json", Run) is None
    assert read_gallery(tmp_path / "gallery.parquet") is None


def test_an_early_run_has_defaults_and_unknown_keys_are_let_through(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"verb": "score", "model": {"name": "tiles"}, "new_key": 1, "finished": null}')
    run = read_record(tmp_path / "run.json", Run)
    assert run is not None
    assert (run.model.name, run.calibration, run.warnings, run.finished) == ("tiles", None, (), None)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ('{"n_good": "many"}', "evaluation facts: n_good"), ("[]", "whole")]
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(FolderError, match=message):
        read_record(tmp_path / "evaluation.json", Evaluation)


def test_a_damaged_gallery_is_named(tmp_path: Path) -> None:
    (tmp_path / "gallery.parquet").write_bytes(b"not parquet")
    with pytest.raises(FolderError, match=r"gallery\.parquet cannot be read"):
        read_gallery(tmp_path / "gallery.parquet")
