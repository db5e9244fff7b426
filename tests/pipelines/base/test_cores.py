"""Cores that a process may use: limits of containers in either layout, affinity, and threads that wait asleep."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.base.cores import core_limit, prepare_threads, usable_cores
from pipelines.doctor import examine


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """What a container sees of itself under /proc and /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.stat": "usage_usec 1\n"}, math.inf),
        # A service of systemd's: the slice above it is limited.
        ("0::/a.slice/b.service\n", {"a.slice/cpu.max": "300000 100000", "a.slice/b.service/cpu.max": "max 100000"}, 3),
        # A container whose path is the host's.
        ("0::/system.slice/docker-1.scope\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/../../other\n", {"cpu.max": "400000 100000"}, 4),
        (
            "9:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        (
            "4:cpu:/docker/1\n",
            {"cpu/docker/1/cpu.cfs_quota_us": "100000", "cpu/docker/1/cpu.cfs_period_us": "100000"}
            | {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("9:memory:/x\n", {"memory/cpu.max": "1 100000"}, math.inf),
        ("nonsense", {}, math.inf),
        ("0::/\n", {"cpu.max": "torn"}, math.inf),
    ],
)
def test_the_limit_of_a_container_is_read_in_either_layout(tmp_path: Path, groups, files, limit) -> None:
    assert core_limit(tree(tmp_path, groups, files)) == limit


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert core_limit(tmp_path) == math.inf


@pytest.mark.parametrize(("limit", "usable"), [(0.1, 1), (1.5, 2), (3.0, 3), (math.inf, 64)])
def test_a_part_of_a_core_is_rounded_up(monkeypatch: pytest.MonkeyPatch, limit: float, usable: int) -> None:
    monkeypatch.setattr("pipelines.base.cores.affine_cores", lambda: 64)
    monkeypatch.setattr("pipelines.base.cores.core_limit", lambda: limit)
    assert usable_cores() == usable
    environment: dict[str, str] = {}
    prepare_threads(environment)
    assert environment.get("OMP_NUM_THREADS") == (None if usable == 64 else str(usable))


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.base.cores.core_limit", lambda: 0.5)
    asked = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}
    environment = dict(asked)
    prepare_threads(environment)
    assert environment == asked


IN_A_PROCESS = """
import pipelines, os
from pipelines.settings import settings
print(settings().workers)
import torch
print(torch.get_num_threads())
"""


def one_core(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may use a single core."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KINTSUGI_"))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | variables,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )  # fmt: skip


def test_a_process_that_is_kept_on_one_core_takes_one_worker_and_sleeps_while_it_waits() -> None:
    done = one_core(IN_A_PROCESS, OMP_DISPLAY_ENV="verbose")
    assert done.stdout.split() == ["1", "1"]
    # As the OpenMP that torch has loaded shows: nobody may load torch before the variables are set.
    assert re.search(r"OMP_WAIT_POLICY = '?PASSIVE", done.stderr)


def test_the_doctor_shows_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("base.cores", "doctor"):
        monkeypatch.setattr(f"pipelines.{module}.affine_cores", lambda: 64)
        monkeypatch.setattr(f"pipelines.{module}.core_limit", lambda: 1.5)
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    finding = next(each for each in examine() if each.subject == "cores")
    assert finding.detail == "2 of 128 may be used (affinity to 64, a container limit of 1.5); KINTSUGI_WORKERS is 2"
