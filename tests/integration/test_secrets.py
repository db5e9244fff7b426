"""Passwords stay where they belong, and nobody gets in without one."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path

import pytest

from .interfaces import status_of

pytestmark = pytest.mark.integration

SERVED = '\n[schedule]\nscore = "1h"\nfolder = "inbox"\nout = "served"\n'
ASKED = {"mlflow": "api/2.0/mlflow/registered-models/search", "prefect": "api/admin/version"}


def forms(secret: str) -> set[bytes]:
    """As it is, as a part of an address, and in a header."""
    return {
        secret.encode(),
        urllib.parse.quote(secret, safe="").encode(),
        base64.b64encode(secret.encode()),
        base64.b64encode(f"admin:{secret}".encode()),
    }


@pytest.fixture(scope="module")
def secrets(stack) -> dict[str, set[bytes]]:
    """All that docker/generate-env has drawn, by name, in every form."""
    values = {name: value for name, value in stack.values.items() if not name.startswith(("KINTSUGI", "COMPOSE"))}
    drawn = values | {"PREFECT_AUTH": values["PREFECT_AUTH"].removeprefix("admin:")}
    assert all(len(value) >= 20 for value in drawn.values()), drawn.keys()
    return {name: forms(value) for name, value in drawn.items()}


def found(secrets: dict[str, set[bytes]], where: str, content: bytes) -> list[str]:
    return [f"{name} in {where}" for name, texts in secrets.items() if any(text in content for text in texts)]


def test_no_secret_is_in_a_file(stack, champion, secrets):
    leaks = []
    looked: set[Path] = set()
    for path in stack.folder.rglob("*"):
        if path.is_file() and path != stack.folder / ".env":
            leaks += found(secrets, str(path), path.read_bytes())
            looked.add(path.relative_to(stack.folder))
    assert {"logs", "home", "worker-home", "homes", "data"} <= {path.parts[0] for path in looked}
    assert not leaks


def test_only_mlflow_goes_to_the_object_store(stack, expected):
    """In docker-compose.yml nobody else reaches it, so MLflow must not send its clients there."""
    requests = stack.store.log.read_text()
    assert "/model.onnx" in requests
    assert "X-Amz-Signature" not in requests


def test_no_secret_is_in_a_database_or_the_object_store(stack, champion, secrets):
    dump = stack.postgres.dump()
    assert b"tiles" in dump
    assert b"model_versions" in dump
    objects = stack.objects()
    assert objects
    leaks = found(secrets, "a database", dump)
    for key, content in objects.items():
        leaks += found(secrets, key, content)
    assert not leaks


def test_no_secret_is_on_a_command_line(stack, champion, secrets):
    """Every user of a machine sees the words that its programs were started with."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue  # it has ended
    assert any(b"mlflow" in line for line in lines)
    assert not [each for line in lines for each in found(secrets, line.decode(errors="replace"), line)]


@pytest.mark.parametrize("server", ["mlflow", "prefect"])
def test_without_the_password_a_server_says_401(stack, server):
    url = {"mlflow": stack.mlflow_url, "prefect": stack.prefect_url}[server] + f"/{ASKED[server]}"
    variable = {"mlflow": "MLFLOW_ADMIN_PASSWORD", "prefect": "PREFECT_AUTH"}[server]
    right = "admin", stack.values[variable].removeprefix("admin:")
    assert [status_of(url), status_of(url, ("admin", "wrong")), status_of(url, right)] == [401, 401, 200]


@pytest.mark.parametrize(
    ("words", "variable", "named"),
    [
        (["models", "list"], "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_PASSWORD"),
        (["score", "inbox", "--model", "tiles@champion", "--out", "refused"], "MLFLOW_TRACKING_PASSWORD",
         "MLFLOW_TRACKING_PASSWORD"),
        (["serve", "jobs/served.toml"], "PREFECT_API_AUTH_STRING", "PREFECT_API"),
    ],
    ids=["models", "score", "serve"],
)  # fmt: skip
def test_a_wrong_password_is_told_plainly(stack, champion, inbox, words, variable, named):
    (champion.job.parent / "served.toml").write_text(champion.job.read_text() + SERVED)
    told = stack.kintsugi(*words, **{variable: "admin:wrong"})
    assert told.code == 2, told
    assert told.err.splitlines()[-1].startswith("error: "), told.err
    assert named in told.err
    assert "Traceback" not in told.out + told.err
    assert not (stack.data / "refused").exists()
