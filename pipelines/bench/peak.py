"""How much memory a process has held."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> float:
    """The most memory that this process has held, in MiB.

    Not getrusage: its figure begins, after fork and exec, with that of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # no Linux
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
