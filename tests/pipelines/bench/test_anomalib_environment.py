"""anomalib's environment: found where the script puts it, and the script named where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bench.anomalib_environment import (
    DONE,
    SCRIPT,
    MissingEnvironmentError,
    environment_under,
    find_anomalib,
)
from pipelines.bench.methods import ANOMALIB

ROOT = Path(__file__).parents[3]


def test_where_it_is_missing_the_message_names_the_script(tmp_path: Path) -> None:
    environment_under(tmp_path).mkdir()  # begun, and without anomalib
    with pytest.raises(MissingEnvironmentError, match=rf"not installed in {tmp_path}.*{SCRIPT}.*--methods"):
        find_anomalib(tmp_path)
    assert (ROOT / SCRIPT).is_file()


def test_the_interpreter_is_that_of_a_finished_installation(tmp_path: Path) -> None:
    """The metadata of the package are there before the packages that it needs."""
    packages = environment_under(tmp_path) / "lib" / "python3.12" / "site-packages"
    (packages / f"anomalib-{ANOMALIB}.dist-info").mkdir(parents=True)
    with pytest.raises(MissingEnvironmentError):
        find_anomalib(tmp_path)
    (environment_under(tmp_path) / DONE).touch()
    assert find_anomalib(tmp_path) == environment_under(tmp_path) / "bin" / "python"
