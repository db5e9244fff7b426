"""docker/backup with a `docker` of our own, whose volumes are folders: what is copied and put back is real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = '''#!{python}
"""Says what was asked of it; runs a container's command on the folders that it would mount."""
import subprocess, sys, time
from pathlib import Path

state, words = Path({state!r}), sys.argv[1:]
with (state / "asked").open("a") as asked:
    asked.write(" ".join(words if words[0] == "compose" else words[:3]) + "\\n")
if words[:2] == ["compose", "ps"]:
    print("postgres\\nmlflow")
elif words[:2] == ["volume", "inspect"]:
    sys.exit(not (state / words[2]).is_dir())
elif words[0] == "volume":
    (state / words[2]).mkdir(exist_ok=True)
elif words[1] == "stop" and (state / "slow").exists():
    time.sleep(60)
elif words[0] == "run":
    mounts = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    command = words[-1]
    for mount in mounts:
        source, target = mount.split(":")
        command = command.replace(target, source if source.startswith("/") else str(state / source))
    if (state / "full").exists():
        sys.exit("no space left on device")
    sys.exit(subprocess.run(["sh", "-euc", command]).returncode)
'''


@pytest.fixture
def servers(tmp_path: Path):
    """A checkout with an .env, and volumes with something in them."""
    checkout, state, path = tmp_path / "checkout", tmp_path / "state", tmp_path / "bin"
    for folder in (checkout / "docker", state, path):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "docker" / "backup", checkout / "docker")
    (checkout / ".env").write_text("POSTGRES_PASSWORD=secret\n")
    (path / "docker").write_text(DOCKER.format(python=sys.executable, state=str(state)))
    (path / "docker").chmod(0o755)
    for volume in ("postgres", "objects", "kintsugi-home"):
        (state / f"kintsugi_{volume}" / "base").mkdir(parents=True)
        (state / f"kintsugi_{volume}" / "base" / ".1").write_text(f"of {volume}")
        (state / f"kintsugi_{volume}" / "base").chmod(0o700)

    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"}

    def backup(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [checkout / "docker" / "backup", *map(str, words)],
            cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip

    def held() -> dict[str, str]:
        files = (each for each in state.rglob("*") if each.is_file() and each.parent != state)
        return {str(each.relative_to(state)): each.read_text() for each in files}

    return SimpleNamespace(
        checkout=checkout, state=state, backup=backup, held=held, saved=tmp_path / "saved", environment=environment
    )


def asked(servers: SimpleNamespace) -> list[str]:
    return (servers.state / "asked").read_text().splitlines()


def test_what_was_saved_comes_back_and_nothing_else(servers: SimpleNamespace) -> None:
    before = servers.held()
    done = servers.backup("save", servers.saved)
    assert done.returncode == 0, done.stderr
    of_compose = [words for words in asked(servers) if words.startswith("compose")]
    assert of_compose == ["compose ps --services --status running", "compose stop", "compose start postgres mlflow"]
    assert stat.S_IMODE(servers.saved.stat().st_mode) == 0o700

    (servers.state / "kintsugi_objects" / "base" / ".1").unlink()
    (servers.state / "kintsugi_objects" / "later").write_text("came after the backup")
    shutil.rmtree(servers.state / "kintsugi_postgres")
    (servers.checkout / ".env").unlink()
    done = servers.backup("restore", servers.saved)
    assert done.returncode == 0, done.stderr
    assert servers.held() == before
    assert stat.S_IMODE((servers.state / "kintsugi_postgres" / "base").stat().st_mode) == 0o700
    assert (servers.checkout / ".env").read_text() == "POSTGRES_PASSWORD=secret\n"
    assert stat.S_IMODE((servers.checkout / ".env").stat().st_mode) == 0o600


def test_servers_start_again_where_copying_fails(servers: SimpleNamespace) -> None:
    (servers.state / "full").touch()
    done = servers.backup("save", servers.saved)
    assert done.returncode
    assert not servers.saved.exists(), "what is not whole must not look so"
    assert asked(servers)[-1] == "compose start postgres mlflow"
    (servers.state / "full").unlink()
    assert servers.backup("save", servers.saved).returncode == 0


def test_a_damaged_backup_changes_nothing(servers: SimpleNamespace) -> None:
    servers.backup("save", servers.saved)
    before = servers.held()
    with (servers.saved / "objects.tar").open("r+b") as file:
        file.seek(600)
        file.write(b"?")
    count = len(asked(servers))
    done = servers.backup("restore", servers.saved)
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert servers.held() == before
    assert len(asked(servers)) == count


def test_another_installation_s_passwords_are_not_lost(servers: SimpleNamespace) -> None:
    servers.backup("save", servers.saved)
    (servers.checkout / ".env").write_text("POSTGRES_PASSWORD=another\n")
    done = servers.backup("restore", servers.saved)
    assert done.returncode == 2
    assert ".env here is another one" in done.stderr
    assert (servers.checkout / ".env").read_text() == "POSTGRES_PASSWORD=another\n"


@pytest.mark.parametrize("words", [(), ("save",), ("restore",), ("frobnicate", "x")])
def test_it_tells_how_it_is_used(servers: SimpleNamespace, words: tuple[str, ...]) -> None:
    done = servers.backup(*words)
    assert done.returncode == 2
    assert "docker/backup save FOLDER" in done.stderr


def test_a_backup_is_never_overwritten(servers: SimpleNamespace) -> None:
    servers.saved.mkdir()
    done = servers.backup("save", servers.saved)
    assert done.returncode == 2
    assert "give a folder that does not" in done.stderr
    assert not any(words.startswith("compose") for words in asked(servers))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_servers_start_again_where_somebody_ends_it(servers: SimpleNamespace, number: int) -> None:
    """A terminal that is closed, Ctrl-C, a machine that shuts down."""
    (servers.state / "slow").touch()
    process = subprocess.Popen(
        # No program hears a signal that whoever started it has decided to ignore, as nohup does.
        ["env", "--default-signal=HUP,INT,TERM", servers.checkout / "docker" / "backup", "save", servers.saved],
        env=servers.environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (servers.state / "asked").exists() or "compose stop" not in asked(servers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(30) == 128 + number
    assert asked(servers)[-1] == "compose start postgres mlflow"
    assert not servers.saved.exists()


def test_servers_that_were_never_started_are_not_backed_up(servers: SimpleNamespace) -> None:
    shutil.rmtree(servers.state / "kintsugi_objects")
    done = servers.backup("save", servers.saved)
    assert done.returncode == 2
    assert "there is no volume kintsugi_objects" in done.stderr
    assert not any(words.startswith("compose") for words in asked(servers))


def test_its_usage_is_found_from_its_own_folder(servers: SimpleNamespace) -> None:
    done = subprocess.run(["./backup"], cwd=servers.checkout / "docker", capture_output=True, text=True, check=False)
    assert "docker/backup save FOLDER" in done.stderr


def test_a_folder_is_the_caller_s(servers: SimpleNamespace) -> None:
    assert servers.backup("save", "saved").returncode == 0
    assert servers.saved.is_dir()
    done = servers.backup("save", "at 12:30")
    assert done.returncode == 2
    assert "colon" in done.stderr


def test_it_copies_the_volumes_of_the_compose_file_with_an_image_of_it() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    text = (ROOT / "docker" / "backup").read_text()
    assert set(re.search(r'^volumes="(.+)"$', text, re.MULTILINE)[1].split()) == set(compose["volumes"])
    assert re.search(r"^image=(\S+)", text, re.MULTILINE)[1] in {each["image"] for each in compose["services"].values()}
    assert compose["name"] == "kintsugi"
