"""The report: one self-contained page that a folder of results is read by.

`write_report(OUT)` reads what is in OUT, finished or not, and writes OUT/report.html. The page needs no network, no
server and no other file: style, script, figures and pictures are inside it.
"""

from pipelines.report.score_page import write_report

__all__ = ["write_report"]
