"""anomalib in an environment of its own: its dependencies are none of ours. Made once, by uv, when a row needs it."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from pipelines.base.locks import locked
from pipelines.bench.methods import ANOMALIB
from pipelines.errors import KintsugiError

log = logging.getLogger(__name__)

SAME = ("torch", "torchvision", "timm")
"""Installed there in the versions that are here: the features must be the same, and uv has them already."""


class EnvironmentFailedError(KintsugiError):
    """anomalib cannot be installed here."""


def python_of(home: Path) -> Path:
    """The interpreter of the environment under a folder, there or not."""
    return home / f"anomalib-{ANOMALIB}" / "bin" / "python"


def ensure_anomalib(home: Path) -> Path:
    """Make the environment where it is not there yet.

    Args:
        home: Folder of environments; the same for all benches of a user.

    Returns:
        Its interpreter.

    Raises:
        EnvironmentFailedError: uv is missing, or cannot install it; the message says what uv said.
    """
    python = python_of(home)
    environment = python.parent.parent
    done = environment / "kintsugi-done"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "lock"):
        if done.is_file():
            return python
        uv = _uv()
        same = [f"{name}=={installed_version(name).partition('+')[0]}" for name in SAME]
        log.info("installing anomalib %s into %s", ANOMALIB, environment)
        shutil.rmtree(environment, ignore_errors=True)
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), f"anomalib=={ANOMALIB}", *same])
        done.touch()
    return python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        msg = (
            "uv is not installed, which makes anomalib's environment: install it, or ask for "
            "--methods patchcore_own,padim_own, which are re-implemented here"
        )
        raise EnvironmentFailedError(msg)
    return found


def _run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603 - uv, with our words
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"uv ended with code {done.returncode}"
        msg = (
            f"anomalib {ANOMALIB} cannot be installed ({said[-400:]}): it needs the package registry; "
            "--methods patchcore_own,padim_own are re-implemented here"
        )
        raise EnvironmentFailedError(msg)
