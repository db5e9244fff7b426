"""The script that installs anomalib: what it asks uv for, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.bench.anomalib_environment import DONE, MissingEnvironmentError, environment_under, find_anomalib

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_anomalib_environment.py"


def run(tmp_path: Path, uv: str) -> subprocess.CompletedProcess[str]:
    """Run it with an interpreter that has no uv beside it and with another uv on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(f"#!/bin/sh\n{uv}\n")
    (folder / "uv").chmod(0o755)
    start = f"import sys, runpy; sys.executable = {str(folder / 'python')!r}; sys.argv = [{str(SCRIPT)!r}]; "
    command = [sys.executable, "-c", f"{start}runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"]
    home = os.environ | {"KINTSUGI_HOME": str(tmp_path / "home")}
    return subprocess.run(command, capture_output=True, text=True, env=home, check=False)


def test_anomalib_gets_our_torch_in_an_environment_under_home(tmp_path: Path) -> None:
    makes = 'for last; do :; done; if [ "$1" = venv ]; then mkdir -p "$last"; fi'
    done = run(tmp_path, f'{makes}; echo "$@" >> {tmp_path / "calls"}')
    assert done.returncode == 0, done.stderr
    made, installed = (tmp_path / "calls").read_text().splitlines()
    environment = tmp_path / "home" / "environments"
    assert made.startswith("venv")
    assert str(environment) in made
    assert f"torch=={torch.__version__.partition('+')[0]}" in installed
    assert f"is installed in {environment}" in done.stdout
    assert find_anomalib(environment).is_relative_to(environment)


def test_an_installation_that_is_cut_off_does_not_count(tmp_path: Path) -> None:
    """One that was whole is begun again, and fails: no row may use what is left."""
    finished = environment_under(tmp_path / "home" / "environments") / DONE
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert run(tmp_path, "exit 7").returncode == 7
    with pytest.raises(MissingEnvironmentError):
        find_anomalib(tmp_path / "home" / "environments")


def test_a_failed_installation_ends_with_uvs_words_and_code(tmp_path: Path) -> None:
    done = run(tmp_path, "echo 'no such registry' >&2; exit 7")
    assert done.returncode == 7
    assert done.stderr.endswith("no such registry\n")
