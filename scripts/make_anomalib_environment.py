#!/usr/bin/env python3
"""Install anomalib for the rows of `kintsugi bench` that need it, into an environment of its own under KINTSUGI_HOME.

    scripts/make_anomalib_environment.py

Needs uv and the package registry. torch, torchvision and timm get the versions that are here: the features must be the
same, and uv has these packages already. Run it again after a failure: what is installed stays.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.bench.anomalib_environment import DONE, environment_under
from pipelines.bench.methods import ANOMALIB
from pipelines.settings import settings

SAME = ("torch", "torchvision", "timm")


def uv_commands(uv: str, environment: Path) -> list[list[str]]:
    """Return the commands that make the environment and install anomalib into it."""
    same = [f"{name}=={installed_version(name).partition('+')[0]}" for name in SAME]
    return [
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(environment)],
        [uv, "pip", "install", "--python", str(environment / "bin" / "python"), f"anomalib=={ANOMALIB}", *same],
    ]


def main() -> None:
    """Run the commands; their messages are uv's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed: install it, then run this again")
    environment = environment_under(settings().home.resolve() / "environments")
    (environment / DONE).unlink(missing_ok=True)
    for command in uv_commands(uv, environment):
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603 - uv, with our words
            sys.exit(code)
    (environment / DONE).touch()
    sys.stdout.write(f"anomalib {ANOMALIB} is installed in {environment}\n")


if __name__ == "__main__":
    main()
