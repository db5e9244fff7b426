from __future__ import annotations

from pipelines.report.file_table import find_common_notes, pack_rows
from pipelines.report.rows import read_rows


def test_a_note_of_most_files_is_said_once(make) -> None:
    rows = make.rows(make.scores)
    for i, row in enumerate(rows[:6]):
        row["note"] = "was grey; was cut" if i == 0 else "was grey"
    read = read_rows(make.folder(rows) / "results.parquet", limit=100)
    common = find_common_notes(read)
    assert common == {"was grey"}
    assert pack_rows(read, common)["notes"] == ["", "was cut"]
    assert sorted(pack_rows(read, frozenset())["notes"]) == ["", "was grey", "was grey; was cut"]


def test_a_note_of_half_the_files_or_of_five_stays_with_them(make) -> None:
    rows = make.rows(make.scores)
    for row in rows[:5]:
        row["note"] = "was grey"
    assert not find_common_notes(read_rows(make.folder(rows) / "results.parquet", limit=100))
    assert not find_common_notes(read_rows(make.folder(rows[:5], name="few") / "results.parquet", limit=100))
