"""Where anomalib is: in an environment of its own, for its dependencies are none of ours."""

from __future__ import annotations

from pathlib import Path

from pipelines.bench.methods import ANOMALIB
from pipelines.errors import KintsugiError

DONE = "kintsugi-done"  # written last: without it the installation was cut off
SCRIPT = "scripts/make_anomalib_environment.py"


class MissingEnvironmentError(KintsugiError):
    """anomalib is not installed for its rows."""


def environment_under(home: Path) -> Path:
    """The environment under a folder of environments, there or not."""
    return home / f"anomalib-{ANOMALIB}"


def find_anomalib(home: Path) -> Path:
    """Return the interpreter that has anomalib.

    Args:
        home: Folder of environments; the same for all benches of a user.

    Raises:
        MissingEnvironmentError: It is not there; the message names the script that installs it.
    """
    environment = environment_under(home)
    if not (environment / DONE).is_file():
        msg = (
            f"anomalib {ANOMALIB} is not installed in {environment}: run {SCRIPT} of a clone of the repository, "
            "or ask for other --methods, such as ours,knn"
        )
        raise MissingEnvironmentError(msg)
    return environment / "bin" / "python"
