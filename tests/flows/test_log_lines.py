"""KINTSUGI_LOG=json: every line on stderr is an object, and those of one process share a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def lines(trained, tmp_path: Path):
    """What the real command says on stderr, line by line."""

    def lines(folder: Path) -> list[dict[str, str]]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        command = ["score", folder, "--model", trained.model, "--out", tmp_path / "out"]
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, command)],
            capture_output=True, text=True, check=False,
            env=clean | {"KINTSUGI_HOME": str(tmp_path / "home"), "KINTSUGI_LOG": "json"},
        )  # fmt: skip
        return [json.loads(line) for line in done.stderr.splitlines()]

    return lines


def test_what_went_wrong_is_an_object_too(lines, tmp_path: Path) -> None:
    told = lines(tmp_path / "nowhere")
    assert (told[-1]["level"], told[-1]["logger"]) == ("error", "flows")
    assert "nowhere does not exist" in told[-1]["message"]


def test_lines_of_one_process_share_a_run(lines, trained) -> None:
    told = lines(trained.images)
    assert len({line["run"] for line in told}) == 1
    assert any("Drift was not checked" in line["message"] and line["level"] == "warning" for line in told)


def test_prefect_s_own_lines_are_objects_too(tmp_path: Path) -> None:
    """In the process of the command, where Prefect is imported after it has begun."""
    program = """
from flows.log_lines import let_prefect_speak_json
let_prefect_speak_json()
from prefect.logging.configuration import setup_logging
setup_logging()
import logging
logging.getLogger("prefect.runner").warning("a line of %s", "Prefect")
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=clean | {"PREFECT_HOME": str(tmp_path), "KINTSUGI_LOG": "json"},
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["logger"], told["level"], told["message"]) == ("prefect.runner", "warning", "a line of Prefect")
    assert told["run"]
