"""The environment: values that cannot be used, the doctor's word on them, and what is sent to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.doctor import examine
from pipelines.errors import SettingsError
from pipelines.settings import settings


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("WORKERS", "0", "greater than or equal to 1"),
        ("WORKERS", "many", "a valid integer, unable to parse string as an integer"),
        ("MAX_PIXELS", "-5", "greater than or equal to 1"),
        ("DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
        ("HOME", "s3://bucket", "this is an address, not a local path: mount or copy it, and give that folder"),
    ],
)
def test_a_value_that_cannot_be_used_names_variable_and_limit(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, limit: str
) -> None:
    monkeypatch.setenv(f"KINTSUGI_{name}", value)
    with pytest.raises(SettingsError, match=rf"^KINTSUGI_{name}={value}: .*{limit}; set another value, or unset"):
        settings()


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_WORKERS", "0")
    monkeypatch.setenv("KINTSUGI_DEVICE", "gpu")
    with pytest.raises(SettingsError, match=r"KINTSUGI_DEVICE=gpu: .*KINTSUGI_WORKERS=0: "):
        settings()


def test_the_doctor_names_a_wrong_variable_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_WORKERS", "0")
    found = list(examine())
    assert [finding.subject for finding in found if finding.works is False] == ["settings"]
    assert sum("KINTSUGI_WORKERS=0: " in finding.detail for finding in found) == 1


def test_the_doctor_names_a_home_that_is_a_file_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "file"))
    ill = [finding for finding in examine() if finding.works is False]
    assert [finding.subject for finding in ill] == ["home"]
    assert f"KINTSUGI_HOME={tmp_path}/file cannot be written" in ill[0].detail


def test_onnx_runtime_leaves_nothing_in_the_users_folder(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    home = tmp_path / "user"
    home.mkdir()
    command = [sys.executable, "-c", "import pipelines.models.session"]
    subprocess.run(command, check=True, env=kept | {"HOME": str(home)}, cwd=tmp_path)
    assert list(home.rglob("*")) == []


def test_the_home_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KINTSUGI_HOME", "~/x")
    assert settings().home == tmp_path / "x"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compose files write `KINTSUGI_HOME: ${KINTSUGI_HOME:-}`; Python would read the current folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KINTSUGI_HOME", "")
    assert settings().home == tmp_path / ".kintsugi"
