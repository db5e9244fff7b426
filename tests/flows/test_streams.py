"""Standard streams that are closed, whose reader goes away, or that are for programs: the real command each time."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from flows.cli import app
from pipelines.demo_images import MAGNETIC_TILE

GOOD = MAGNETIC_TILE / "test" / "good"
COMMAND = [sys.executable, "-m", "flows.cli"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a command with a home of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return clean | {"KINTSUGI_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def as_json(environment: dict[str, str], tmp_path: Path):
    """Run a program whose lines are for programs; its exit code, and the lines."""

    def as_json(*command: object) -> tuple[int, list[dict]]:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, cwd=tmp_path,
            env=environment | {"KINTSUGI_LOG": "json"},
        )  # fmt: skip
        return done.returncode, parsed(done.stderr)

    return as_json


def parsed(text: str) -> list[dict]:
    """Each line as the object that it is."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "logger", "run", "message"} <= line.keys() for line in lines)
    return lines


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing(environment, trained, tmp_path: Path, closed: str) -> None:
    shutil.copytree(GOOD, tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8")
    words = [*COMMAND, "score", "images", "--model", str(trained.model), "--out", "out"]
    shell = f"{shlex.join(words)} {closed}"
    done = subprocess.run(["sh", "-c", shell], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    assert b"Traceback" not in done.stderr
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == 13


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from flows.streams import prepare_streams; prepare_streams(); import os, subprocess\n"
        "with open('mine', 'w') as mine:\n"
        "    os.write(1, b'of a library'); os.write(2, b'of a library')\n"
        "    subprocess.run(['sh', '-c', 'echo of a child; echo of a child >&2'], check=True)\n"
    )
    shell = f"{shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "mine").read_bytes() == b""


@pytest.mark.parametrize(
    ("streams", "log"), [(("stdout",), "text"), (("stdout", "stderr"), "text"), (("stdout", "stderr"), "json")]
)
def test_a_reader_that_goes_away_stops_no_work(environment, trained, tmp_path: Path, streams, log: str) -> None:
    shutil.copytree(GOOD, tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8")
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COMMAND, "score", "images", "--model", str(trained.model), "--out", "out"]
    given = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | dict.fromkeys(streams, writer)
    done = subprocess.run(words, env=environment | {"KINTSUGI_LOG": log}, cwd=tmp_path, check=False, **given)
    os.close(writer)
    assert done.returncode == 3
    assert not any(b"Broken" in (text or b"") for text in (done.stdout, done.stderr))
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == 13


def test_every_verb_s_lines_are_objects(as_json, trained, tmp_path: Path) -> None:
    shutil.copytree(GOOD, tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "job.toml").write_text(trained.job.read_text().replace('"good"', '"nowhere"'))
    model = ("--model", trained.model)
    runs = {
        ("score", "images", *model, "--out", "scored"): 3,
        ("restore", "images", "--model", "builtin:super_resolution_x2", "--out", "restored"): 3,
        ("evaluate", MAGNETIC_TILE, *model): 0,
        ("embed", "images", *model, "--out", "x.parquet"): 3,
        ("sample", trained.model, "--count", "2"): 0,
        ("explore", trained.model, "--out", "explored"): 0,
        ("report", "scored"): 0,
        ("review", "nothing"): 2,
        ("recalibrate", "nothing"): 2,
        ("models",): 0,
        ("models", "show", "nothing"): 2,
        ("doctor",): 0,
        ("train", "job.toml"): 2,
        ("serve", "nothing"): 2,
        ("bench", "throughput", "images", "--model", "nothing.onnx", "--out", "bench"): 2,
        ("demo", "--nonsense"): 2,
    }
    assert {words[0] for words in runs} == set(get_command(app).commands)
    for words, expected in runs.items():
        code, lines = as_json(*COMMAND, *words)
        assert code == expected, (words, lines)
        assert not expected or lines, f"{words}: an error without a word"


def test_the_last_line_of_a_run_with_failures_is_the_tool_s_own(as_json, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8")
    code, lines = as_json(*COMMAND, "restore", "images", "--model", "builtin:denoise", "--out", "out")
    assert (code, lines[-1]["logger"], lines[-1]["level"]) == (3, "flows", "error")
    assert lines[-1]["message"].startswith("1 of 1 files could not be restored; the reasons are in ")
    assert (
        '<p class="count-note" id="count-failed-note">could not be restored</p>'
        in (tmp_path / "out" / "report.html").read_text()
    )


EVERYBODY = """
import atexit, logging, os, subprocess, sys, threading, warnings
from flows.streams import prepare_streams
prepare_streams()
os.write(2, b"in C\\n\\nwithout an end")
os.write(2, b", and its end\\n")
warnings.warn("a warning", stacklevel=1)
logging.getLogger("library").error("of a library", exc_info=ValueError("its cause"))
print("printed\\n{'no': 'object'}", file=sys.stderr)
subprocess.run(["printf", "%s\\n", "of a child", '{"message": "an object"}'], stdout=2, check=True)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
atexit.register(lambda: print("at the end", file=sys.stderr))
"""


def test_whoever_writes_a_line_it_is_an_object(environment, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERYBODY], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=environment | {"KINTSUGI_LOG": "json"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    by_message = {line["message"]: line for line in lines}
    raw = {message for message, line in by_message.items() if line.get("logger") == "stderr"}
    assert raw == {"in C", "without an end, and its end", "printed", "{'no': 'object'}", "of a child", "at the end"}
    assert "ValueError: its cause" in by_message["of a library"]["trace"]
    assert "ZeroDivisionError" in by_message["ZeroDivisionError: division by zero"]["trace"]
    assert by_message["an object"] == {"message": "an object"}
    assert sum("UserWarning: a warning" in message for message in by_message) == 1
    assert len(lines) == 10


def test_an_error_that_nobody_has_caught_is_one_object(as_json) -> None:
    code = (
        "import pipelines.doctor, sys; from flows.cli import main\n"
        "def broken(): raise ValueError('a bug')\n"
        "pipelines.doctor.examine = broken; sys.argv = ['kintsugi', 'doctor']; main()"
    )
    status, (line,) = as_json(sys.executable, "-c", code)
    assert (status, line["level"], line["message"]) == (1, "critical", "ValueError: a bug")
    assert "in broken" in line["trace"]


@pytest.mark.parametrize("log", ["text", "json"])
def test_a_bar_is_drawn_for_people_only(environment, trained, tmp_path: Path, log: str) -> None:
    shutil.copytree(GOOD, tmp_path / "images")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as shown:
        words = [*COMMAND, "score", "images", "--model", str(trained.model), "--out", "out"]
        variables = environment | {"KINTSUGI_LOG": log, "TERM": "xterm"}
        done = subprocess.run(words, env=variables, cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE, check=True)
        os.close(theirs)
        text = b""
        try:
            while part := shown.read(65536):
                text += part
        except OSError:  # how a terminal ends
            pass
    assert done.returncode == 0
    if log == "json":
        assert parsed(text.decode())
    else:
        assert b"\x1b[" in text
