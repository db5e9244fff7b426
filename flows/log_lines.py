"""Log lines for programs: with KINTSUGI_LOG=json, one JSON object on each line of stderr."""

from __future__ import annotations

import json
import logging
import os
import secrets
from datetime import UTC, datetime

from pipelines.base.progress import as_json

RUN = secrets.token_hex(6)  # of this process, where no flow run has an id of its own


def root_speaks_json() -> bool:
    """Return whether the lines of every logger reach stderr as objects already."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def let_prefect_speak_json() -> None:
    """Have Prefect's own lines be objects, too, here and in processes that are started from here.

    Prefect reads this when it is imported: call it before that.
    """
    if as_json():
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
        os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_JSON_CLASS", f"{__name__}.{PrefectLines.__name__}")


class JsonLines(logging.Formatter):
    """Time, level, logger, run and message of each record; of an error, its stack trace, too."""

    def __init__(self, run: str = RUN) -> None:
        """Keep what every line is marked with.

        Args:
            run: Of Prefect's flow run, or made up for a process.
        """
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": str(getattr(record, "flow_run_id", None) or self.run),  # Prefect's own records know theirs
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: a name that is not UTF-8 text is written as escapes


class PrefectLines(JsonLines):
    """The same, made as Prefect's logging configuration makes its own formatter of this kind."""

    def __init__(self, *_: object) -> None:
        """Take what any formatter is given by a logging configuration, and need none of it."""
        super().__init__()
