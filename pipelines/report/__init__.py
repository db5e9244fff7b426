"""The report: one self-contained page that a folder of results is read by.

`write_report(OUT)` reads what is in OUT, finished or not, and writes OUT/report.html. The page needs no network, no
server and no other file: style, script, figures and pictures are inside it. `write_history(OUT)` does the same for all
runs in folders directly below OUT: one page for each model, over time.

What a page says of a run, an image or a model is in `sentences`; what is fixed text is in `templates/`.
"""

from pipelines.report.over_time import history_address, write_history
from pipelines.report.photographs import write_photographs
from pipelines.report.results_page import write_report

__all__ = [
    "explore_page",
    "folder",
    "history_address",
    "sentences",
    "write_history",
    "write_photographs",
    "write_report",
]
