"""Log lines for programs: with KINTSUGI_LOG=json, one JSON object on each line of stderr."""

from __future__ import annotations

import json
import logging
import os
import secrets
from datetime import UTC, datetime

from pipelines.base.progress import as_json

RUN = secrets.token_hex(6)  # id of this process, for lines outside a flow run


def root_speaks_json() -> bool:
    """Return whether all loggers already write JSON objects to stderr."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def let_prefect_speak_json() -> None:
    """Make Prefect write JSON objects too, in this process and in its children.

    Prefect reads this setting on import: call this function before that.
    """
    if as_json():
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
        os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_JSON_CLASS", f"{__name__}.{PrefectLines.__name__}")


class JsonLines(logging.Formatter):
    """Time, level, logger, run and message of each record, and the stack trace of an error."""

    def __init__(self, run: str = RUN) -> None:
        """Keep the id that every line carries.

        Args:
            run: Id of Prefect's flow run, or a random id for a process.
        """
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as one line."""
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
    """The same formatter, with the constructor that Prefect's logging configuration expects."""

    def __init__(self, *_: object) -> None:
        """Accept the arguments of a logging configuration and ignore them."""
        super().__init__()
