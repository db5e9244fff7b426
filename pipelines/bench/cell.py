"""The process of one cell: reads a question, trains and scores, writes the answer.

python -m pipelines.bench.cell QUESTION.json ANSWER.json
"""

from __future__ import annotations

import json
import logging
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.base.files import write_json
from pipelines.bench.question import Question, read_question
from pipelines.errors import KintsugiError

WRONG = 2
# By the kind of method. Imported when it is asked: what one method needs counts for no other's memory.
MEASURES = {
    "job": "pipelines.bench.own:measure_job",
    "memory": "pipelines.bench.baselines:measure_memory",
    "autoencoder": "pipelines.bench.baselines:measure_autoencoder",
    "anomalib": "pipelines.bench.anomalib_rows:measure_anomalib",
}


def answer(question: Question) -> dict[str, Any]:
    """Train and score.

    Returns:
        `figures` (as `evaluate` writes them), `train_seconds`, `images_per_second`, `peak_mib`, `size`, `n_train`,
        `device`, `note`, `scores` (of each test image, by its path below the test folder), `calibration` (scores of
        good images that the method was not fitted on).
    """
    measure: Callable[[Question], dict[str, Any]] = pkgutil.resolve_name(MEASURES[question.method.kind])
    return measure(question)


def main() -> int:
    """Run from the command line; an error that the user can mend is the last line on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pipelines")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    question, place = (Path(argument) for argument in sys.argv[1:])
    try:
        write_json(place, answer(read_question(json.loads(question.read_text(encoding="utf-8")))))
    except KintsugiError as error:
        sys.stderr.write(f"{error}\n".replace("\n", "; ").removesuffix("; ") + "\n")
        return WRONG
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
