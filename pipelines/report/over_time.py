"""The pages over time: of each model, what all its runs below one folder found."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pipelines.base.files import shortened, write_json
from pipelines.base.locks import locked
from pipelines.errors import FolderError
from pipelines.report import words
from pipelines.report.comparison import compare_runs
from pipelines.report.page import render_page, write_page
from pipelines.report.past_charts import describe_drift, draw_charts, name_unit, scale_error_bar
from pipelines.report.past_runs import KEPT, Kept, PastRun, find_runs, read_kept
from pipelines.report.timeline import BOTTOM, LEFT, RIGHT, TOP, WIDTH, TimeAxis

SHOWN_RUNS = 200  # in the table as it opens
LISTED_RUNS = 5_000  # in all of the table: more would make the page slow, and the charts show them
_LOCK = ".history.lock"
_PAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*\.html")


def write_history(out: Path | str) -> list[Path]:
    """Write OUT/<model name>.html for every model that has finished runs in folders directly below OUT.

    Summaries of the runs are kept in OUT/.history.json, so that only new and changed runs are read. Folders that are
    not of finished runs are counted on the pages. Processes that write the same pages wait for each other.

    Args:
        out: The folder that runs are in, each in a folder of its own.

    Returns:
        The pages by name of the model; none where no run has finished.

    Raises:
        FolderError: There is no such folder, or it cannot be read or written; the message says why.
    """
    out = Path(out)
    try:
        with locked(out / _LOCK):
            return _write(out)
    except OSError as error:
        raise FolderError(f"the runs in {out} cannot be shown on history pages: {error.strerror or error}") from error


def name_page(model: str) -> str:
    """Return the file name of a model's page: its name, and a digest where that has characters that are not plain.

    >>> name_page("tiles"), name_page("a/b")
    ('tiles.html', 'a-b~c14cddc0.html')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model).lstrip("-.") or "model"
    if plain != model:
        plain += f"~{hashlib.sha256(model.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return shortened(f"{plain}.html")


def history_address(model: str) -> str:
    """Return where a model's page is, seen from the folder of one of its runs: what run.json has as "history".

    >>> history_address("tiles")
    '../tiles.html'
    """
    return f"../{quote(name_page(model))}"


def _write(out: Path) -> list[Path]:
    kept = read_kept(out)
    found, unlisted = find_runs(out, kept.runs)
    by_model: defaultdict[str, list[PastRun]] = defaultdict(list)
    for each in found.values():
        by_model[each.run.model].append(each.run)
    pages = {name_page(model): runs for model, runs in sorted(by_model.items())}
    for name, runs in pages.items():
        runs.sort(key=lambda run: (run.when, run.folder))
        write_page(out / name, _render(out, runs, unlisted))
    for name in set(kept.pages) - set(pages):
        if _PAGE.fullmatch(name):
            (out / name).unlink(missing_ok=True)
    if found or kept.runs:
        write_json(out / KEPT, Kept(pages=tuple(pages), runs=found).model_dump(mode="json"))
    return [out / name for name in pages]


def _render(out: Path, runs: Sequence[PastRun], unlisted: Counter[str]) -> str:
    """Return the HTML of a model's runs, oldest first."""
    axis = TimeAxis([run.when for run in runs], [run.version for run in runs])
    rows = [_describe_row(out, run) for run in reversed(runs[-LISTED_RUNS:])]
    facts = {
        "model": runs[-1].model,
        "headline": compare_runs(runs),
        "last": runs[-1],
        "count": len(runs),
        "period": _describe_period(runs),
        "alarms": runs[-1].alarms,
        "axis": axis,
        "charts": draw_charts(runs, axis),
        "addresses": [f"{run.folder}/report.html" for run in runs],
        "box": {"width": WIDTH, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": BOTTOM},
        "rows": rows[:SHOWN_RUNS],
        "older": rows[SHOWN_RUNS:],
        "unlisted": len(runs) - len(rows),
        "left_out": _describe_unlisted(unlisted),
        "unit": name_unit(runs),
        "has": {
            "verdicts": any(run.flagged is not None for run in runs),
            "drift": any(run.drift is not None for run in runs),
            "error_bar": any(run.error_bar is not None for run in runs),
            "psnr": any(run.psnr is not None for run in runs),
            "dice": any(run.dice is not None for run in runs),
            "alarms": any(run.alarms for run in runs),
        },
    }
    styles, scripts = ("page.css", "results.css", "over_time.css"), ("page.js", "over_time.js")
    return render_page("over_time.html", facts, data={}, styles=styles, scripts=scripts)


def _describe_row(out: Path, run: PastRun) -> dict[str, object]:
    return {
        "run": run,
        "linked": os.path.isfile(out / run.folder_name / "report.html"),  # noqa: PTH113 - no right to look is no link
        "drift": describe_drift(run.drift),
        "error_bar": scale_error_bar(run),
    }


def _describe_period(runs: Sequence[PastRun]) -> str:
    first, last = (words.format_moment(run.moment)[:10] for run in (runs[0], runs[-1]))
    return first if first == last else f"{first} to {last}"


def _describe_unlisted(unlisted: Counter[str]) -> str | None:
    """Return a sentence on what is on no page; None where there is nothing."""
    kinds = (
        ("unfinished", "run", "that has not finished", "that have not finished"),
        ("damaged", "run", "that is damaged", "that are damaged"),
        ("foreign", "folder", "that is no run", "that are no runs"),
    )
    said = [
        f"{words.plural(n, what)} {one if n == 1 else many}" for kind, what, one, many in kinds if (n := unlisted[kind])
    ]
    return f"Left out of this page: {', '.join(said)}." if said else None
