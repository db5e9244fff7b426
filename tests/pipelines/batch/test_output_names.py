"""Names of results: no two files get one, nor a file and a folder."""

from __future__ import annotations

from pathlib import Path

from pipelines.base.files import folded
from pipelines.batch.output_names import OutputNames
from pipelines.images import ImageFile


def test_names_that_collide_with_folders_come_to_an_end() -> None:
    files = [ImageFile(Path(), name, 0, 0) for name in ("a.bmp", "a.jpg", "a.jpg.png/x.jpg", "a.jpg.png.png/x.jpg")]
    names = OutputNames(files, ".png")
    assert names["a.jpg"].startswith("restored/a.jpg~")
    assert len({names[file.relative] for file in files}) == 4
    assert names["a.jpg.png/x.jpg"] == "restored/a.jpg.png/x.png"


def test_names_that_would_collide_keep_their_suffix() -> None:
    files = [ImageFile(Path(), name, 0, 0) for name in ("a.jpg", "a.jpg.png", "a.png", "b.tar.gif", "x/a.jpg")]
    names = OutputNames(files, ".png")
    assert len({names[file.relative] for file in files}) == 5
    assert names["b.tar.gif"] == "restored/b.tar.png"
    assert names["x/a.jpg"] == "restored/x/a.png"


def test_names_that_differ_in_case_alone_collide_where_the_file_system_folds_them() -> None:
    accents = ("caf\N{LATIN SMALL LETTER E WITH ACUTE}.png", "cafe\N{COMBINING ACUTE ACCENT}.png")
    files = [
        ImageFile(Path(), name, 0, 0) for name in ("A.png", "a.JPG", "a.png", "B/x.png", "b.png", "c.png", *accents)
    ]
    names = OutputNames(files, ".png", folds=True)
    found = [names[file.relative] for file in files]
    assert len({folded(name) for name in found}) == len(files)
    assert names["c.png"] == "restored/c.png"
    assert OutputNames(files, ".png")["A.png"] == "restored/A.png"
