"""A few seconds of damaged input for every reader (`make soak` gives them minutes), and that a surprise is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")
BROKEN = """
import sys
sys.path.insert(0, {folder!r})
import fuzz
from dataclasses import replace
{how}
fuzz.ENTRIES["jobs"] = replace(fuzz.ENTRIES["jobs"], seeds=lambda: [b"x" * 50], read=read)
sys.argv[1:] = ["jobs", "--seconds", "2", "--keep", {keep!r}]
sys.exit(fuzz.main())
"""


@pytest.mark.parametrize("entry", ["images", "jobs", "overrides", "models", "calibrations", "galleries"])
def test_damaged_input_is_read_or_refused(entry: str, tmp_path: Path) -> None:
    words = [sys.executable, str(FUZZ), entry, "--cases", "1000", "--seed", "2026", "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "refused" in done.stdout


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("def read(data, _): return data[49]", "surprise: IndexError in <string>:6: index out of range"),
        ("def read(data, _): len(data) == 50 or bytes(2**40)", "surprise: MemoryError"),
        ("fuzz.HANGS_AFTER = 0.5\ndef read(data, _):\n    while len(data) != 50: pass", "Timeout (0:00:00.500000)!"),
    ],
)
def test_a_surprise_is_noticed_and_kept(tmp_path: Path, how: str, told: str) -> None:
    code = BROKEN.format(folder=str(FUZZ.parent), how=how, keep=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert (tmp_path / "current").is_file()
