"""How many cores this process may use, and how its threads wait for each other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

WAITING = "OMP_WAIT_POLICY"
THREADS = "OMP_NUM_THREADS"


def usable_cores() -> int:
    """Return how many cores this process may use: at most its affinity, and at most its container's limit.

    `os.cpu_count()` counts the machine's cores, even in a container that may use two of sixty-four.
    """
    return max(1, math.ceil(min(affine_cores(), core_limit())))


def core_limit(root: Path = Path("/")) -> float:
    """Return how many cores the control groups of this process may keep busy; infinity where none is limited.

    A service under systemd's `CPUQuota` is limited by a group above its own, so every group up to the root counts.

    Args:
        root: Where `proc` and `sys` are mounted.

    Source: Linux, "Control Group v2" (`cpu.max`), and "CFS Bandwidth Control" (`cpu.cfs_quota_us`) for version 1.
    """
    limits = [math.inf]
    for folder in _groups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no limit is set there, or "max"
            quota, period = _quota(folder)
            if quota > 0:  # version 1 writes -1 for no limit
                limits.append(quota / period)
    return min(limits)


def prepare_threads(environment: MutableMapping[str, str]) -> None:
    """Set what OpenMP reads when torch or scikit-learn is loaded: threads that sleep while they wait, on usable cores.

    Threads that spin hold the cores that the others of their own team wait for: beside other processes a network took
    forty times as long. What the user has set stays as it is.
    """
    environment.setdefault(WAITING, "PASSIVE")
    if usable_cores() < affine_cores():  # the affinity is known to every library, the limit of a container to none
        environment.setdefault(THREADS, str(usable_cores()))


def affine_cores() -> int:
    """Return how many cores the scheduler may put this process on; macOS has no affinity, so there it is all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups of this process and of all groups above them, of either version."""
    with suppress(OSError, ValueError):  # there are no groups here, or none that this understands
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounts = [controllers, "cpu"] if controllers else ["", "unified"]
            # In a container the path may be the host's, while the container's own group is mounted at the top.
            for mount in dict.fromkeys(mounts):
                top = root / "sys/fs/cgroup" / mount
                group = top / path.strip("/")
                yield from (top, *(each for each in (group, *group.parents) if top in each.parents))


def _quota(folder: Path) -> tuple[float, float]:
    """Microseconds of computing in each period, and the period, of a control group."""
    if (folder / "cpu.max").is_file():
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota), float(period)
    return float((folder / "cpu.cfs_quota_us").read_text()), float((folder / "cpu.cfs_period_us").read_text())
