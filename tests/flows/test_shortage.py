"""Small limits on memory and threads: one message with value, limit and next step, and no traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flows.shortage import shortage_of
from pipelines.demo_images import MAGNETIC_TILE


@pytest.fixture
def limited(trained, tmp_path: Path):
    """Score, or train, under `ulimit -v`, in KiB."""

    def limited(kib: int, verb: str = "score", **variables: str) -> subprocess.CompletedProcess[str]:
        words = ["score", MAGNETIC_TILE / "test" / "good", "--model", trained.model, "--out", tmp_path / "out"]
        words = ["train", trained.job] if verb == "train" else words
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, words)], capture_output=True, text=True, check=False,
            env=os.environ | {"KINTSUGI_HOME": str(tmp_path / "home")} | variables, cwd=tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (kib * 1024, kib * 1024)),
        )  # fmt: skip

    return limited


@pytest.mark.parametrize(("kib", "verb"), [(250_000, "score"), (600_000, "score"), (1_600_000, "train")])
def test_a_small_limit_on_memory_is_one_message(limited, kib: int, verb: str) -> None:
    done = limited(kib, verb)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"{kib} KiB" in last
    assert "raise the" in last


def test_so_it_is_for_programs(limited) -> None:
    done = limited(600_000, KINTSUGI_LOG="json")
    assert done.returncode == 2, done.stderr
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "error"
    assert "may use 600000 KiB of memory (ulimit -v) and needs at least 1572864 KiB" in last["message"]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RuntimeError("can't start new thread"), "no further thread can be started"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory ran out"),
        (OSError(12, "Cannot allocate memory"), "memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "memory ran out"),
        (MemoryError(), "memory ran out"),
        (RuntimeError("something else"), None),
        (ModuleNotFoundError("No module named 'torch'"), None),
    ],
)
def test_libraries_words_for_it_are_known(monkeypatch: pytest.MonkeyPatch, error: Exception, what: str | None) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found = shortage_of(error)
    assert found == (what and f"{what}; no limit is set: free memory, or set KINTSUGI_WORKERS=1, and {AGAIN}")


def test_a_gpu_s_memory_is_not_that_of_the_system() -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1.00 GiB free")
    assert shortage_of(error) == (
        "the memory of the GPU ran out (CUDA out of memory. Tried to allocate 2.00 GiB.): free it, train with a "
        f"smaller train.batch, or set KINTSUGI_DEVICE=cpu, and {AGAIN}"
    )


AGAIN = "start the same command again"
