"""Names of what is made of images, and which image of another folder has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipelines.images import ImageFile
from pipelines.labels import stem_of
from pipelines.output import shortened


def output_names(files: Sequence[ImageFile], suffix: str) -> dict[str, str]:
    """Where the result of each file goes, relative to the output folder: files that would collide keep their suffix.

    >>> names = [ImageFile(Path(), name, 0, 0) for name in ("a/b.jpg", "a/b.png", "c.tif")]
    >>> list(output_names(names, ".png").values())
    ['restored/a/b.jpg.png', 'restored/a/b.png.png', 'restored/c.png']
    """
    names = {file.relative: f"{stem_of(file.relative)}{suffix}" for file in files}
    while True:
        folders = {str(parent) for name in names.values() for parent in PurePosixPath(name).parents}
        counts = Counter(names.values())
        taken = [relative for relative, name in names.items() if counts[name] > 1 or name in folders]
        if not taken:
            break
        for relative in taken:
            full = f"{relative}{suffix}"
            names[relative] = full if names[relative] != full else f"{full}{suffix}"
    return {relative: "/".join(("restored", *map(shortened, name.split("/")))) for relative, name in names.items()}


def by_name(files: Sequence[ImageFile]) -> dict[str, ImageFile]:
    """Images by their name, and without its suffix where that is of one image alone."""
    stems = Counter(stem_of(file.relative) for file in files)
    alone = {stem: file for file in files if stems[stem := stem_of(file.relative)] == 1}
    return alone | {file.relative: file for file in files}
