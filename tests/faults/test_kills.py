"""SIGKILL and SIGTERM at random moments of real processes: what there is, is whole, and in the end nothing differs."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.base.files import TEMPORARY

KILLS = 10  # of each batch job
FORKING = """
import faulthandler, json, os, sys, time
import pipelines.report, pipelines.restore, pipelines.score
import pipelines.batch.folder_run as folder_run
from flows.cli import main
folder_run.KEEP_SECONDS, folder_run.SHARD_FILES = 0.0, 8  # many moments at which rows appear
for line in sys.stdin:
    asked, start = json.loads(line), time.monotonic()
    child = os.fork()
    if not child:
        told = os.open(asked["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        faulthandler.dump_traceback_later(100, exit=True)  # a run that hangs tells where
        sys.argv = ["kintsugi", *asked["words"]]
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if asked["after"] is not None:
        time.sleep(asked["after"])
        os.kill(child, asked["signal"])
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - start]), flush=True)
"""


class Commands:
    """Runs commands in processes of their own, whose imports are done before they begin, and kills some."""

    def __init__(self, told: Path) -> None:
        self._told = told
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, words: list[str], after: float | None = None, number: int = signal.SIGKILL) -> tuple[int, float]:
        """Exit code (or minus the signal) and seconds; killed after so many of them."""
        asked = {"words": words, "after": after, "signal": number, "told": str(self._told)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code, seconds = json.loads(self._process.stdout.readline())
        return code, seconds

    @property
    def told(self) -> str:
        """What the last command said."""
        return self._told.read_text()

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    started = Commands(tmp_path / "told")
    yield started
    started.close()


def expect_whole_files(out: Path) -> None:
    """Whatever has its final name can be read to its end."""
    for path in out.rglob("*"):
        if not path.is_file() or path.name.startswith(TEMPORARY) or path.name == "lock":
            continue
        match path.suffix:
            case ".png":
                Image.open(path).load()
            case ".parquet":
                pq.read_table(path)
            case ".json":
                json.loads(path.read_text())
            case ".csv":
                assert path.read_bytes().endswith(b"\n")
            case ".html":
                assert path.read_text().rstrip().endswith("</html>")
            case _:
                raise AssertionError(path)


def test_killed_again_and_again_it_ends_in_the_same_bytes(
    verb, commands: Commands, stable_bytes, images: Path, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    draw = random.Random(seed)
    for path in sorted(images.rglob("*.png")):
        shutil.copy(path, path.with_stem(f"{path.stem}-2"))
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert commands.run(verb.words(images, whole))[0] == 0
    code, seconds = commands.run(verb.words(images, whole.with_name("again")))  # the first one read files from the disk
    expected = stable_bytes(whole)
    assert (code, stable_bytes(whole.with_name("again"))) == (0, expected)
    kills, moments = 0, list[str]()
    while kills < KILLS:
        number, after = draw.choice([signal.SIGKILL, signal.SIGTERM]), draw.uniform(0, seconds)
        code, _ = commands.run(verb.words(images, out), after, number)
        moments.append(f"{number.name} after {after:.3f} of {seconds:.3f} s: {code}")
        assert len(moments) < 10 * KILLS, moments
        assert code in {0, -number, 130 if number is signal.SIGTERM else 0}, (moments[-1], commands.told)
        assert "Traceback" not in commands.told
        if code == 130:
            assert commands.told.endswith("stopped; start the same command again to continue\n")
        expect_whole_files(out)
        if code == 0:  # it was quicker
            assert stable_bytes(out) == expected
            shutil.rmtree(out)
        else:
            kills += 1
    assert commands.run(verb.words(images, out))[0] == 0
    assert stable_bytes(out) == expected, moments
    assert not list(out.rglob(f"{TEMPORARY}*"))
