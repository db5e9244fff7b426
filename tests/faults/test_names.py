"""Names of folders and files that mean something else to a library, or are no text at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.embed import embed_folder
from pipelines.rebuild import rebuild_report
from pipelines.report import write_history

NAMES = ["D:/out", "s3:bucket", "file:x", "caf\udce9", "a b#c?d%20\\\n"]


@pytest.fixture
def few(images: Path) -> Path:
    """Two images, in a folder whose own name is odd."""
    folder = images.parent / "in: caf\udce9"
    folder.mkdir()
    for file in sorted(path for path in images.rglob("*") if path.is_file())[:2]:
        shutil.copy(file, folder / file.name)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_an_output_folder_will_do(
    verb, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path(name)
    first = verb.run(few.relative_to(tmp_path), out)
    assert first.code == 0, first.lines
    before = (out / "results.parquet").read_bytes()
    assert verb.run(few.relative_to(tmp_path), out).code == 0
    assert (out / "results.parquet").read_bytes() == before
    with (out / "results.parquet").open("rb") as file:
        assert pq.read_table(file)["status"].to_pylist() == ["ok", "ok"]
    assert json.loads((out / "run.json").read_text())["folder"] == os.fspath(few)
    assert rebuild_report(out).is_file()
    write_history(out.parent)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_table_of_embeddings_will_do(
    trained, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path(f"{name}.parquet")
    assert embed_folder(few, trained.model, out).ok == 2
    with out.open("rb") as file:
        assert len(pq.read_table(file)) == 2
