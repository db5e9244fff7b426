"""The report: one self-contained page that a folder of results is read by.

`write_report(OUT)` reads what is in OUT, finished or not, and writes OUT/report.html. The page needs no network, no
server and no other file: style, script, figures and pictures are inside it. `write_history(OUT)` does the same for all
runs in folders directly below OUT: one page for each model, over time.
"""

from pathlib import Path

from pipelines.report.folder import RUN, Run, read_record
from pipelines.report.over_time import history_address, write_history
from pipelines.report.restore_page import write_restore_report
from pipelines.report.score_page import write_score_report


def write_report(out: Path) -> Path:
    """Write OUT/report.html, the page of whatever was done.

    Returns:
        The page. It is the same to the byte for the same folder.

    Raises:
        FolderError: there is nothing to report on, or a file is damaged, or OUT cannot be written.
    """
    run = read_record(out / RUN, Run)
    return write_restore_report(out, run) if run is not None and run.verb == "restore" else write_score_report(out, run)


__all__ = ["explore_page", "facts", "history_address", "write_history", "write_report"]
