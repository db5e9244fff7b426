"""A page of several restorations side by side: of each the pictures of its report, before and after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import FolderError
from pipelines.report.folder import GALLERY, read_gallery
from pipelines.report.page import SHARED_SCRIPTS, SHARED_STYLES, render_page, write_page
from pipelines.report.pictures import pack_pairs
from pipelines.report.results_page import REPORT

LEVELS = 255


def write_photographs(page: Path, runs: Mapping[str, Path]) -> Path:
    """Write a page with the pictures of finished runs of `restore`.

    Args:
        page: Where.
        runs: Their output folders, by what was done.

    Returns:
        The page.

    Raises:
        FolderError: A folder holds no pictures, or the page cannot be written.
    """
    pairs = []
    for done, out in runs.items():
        if (gallery := read_gallery(out / GALLERY)) is None:
            raise FolderError(f"{out} has no pictures of restored images: give the output folder of a finished run")
        pairs += [pair | {"path": f"{done}: {pair['path']}"} for pair in pack_pairs(gallery, LEVELS)]
    reports = [(done, Path(os.path.relpath(out / REPORT, page.parent)).as_posix()) for done, out in runs.items()]
    html = render_page(
        "photographs.html",
        {"count": len(pairs), "reports": reports},
        data={"gallery": pairs},
        styles=(*SHARED_STYLES, "results.css"),
        scripts=(*SHARED_SCRIPTS, "pairs.js", "photographs.js"),
    )
    write_page(page, html)
    return page
