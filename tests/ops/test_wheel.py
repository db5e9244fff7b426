"""The wheel and the source distribution hold all that the software needs, and nothing else. Nothing is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from pipelines.base.software import DISTRIBUTION

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "pipelines", "vaecore")


def files_of(folder: Path) -> list[Path]:
    """What git has or would add below a folder; in an unpacked release, all but caches."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run([*command, folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """The names of the files in the wheel."""
    (path,) = built.glob("*.whl")
    assert path.name.startswith(DISTRIBUTION.replace("-", "_"))
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def source(built: Path) -> set[str]:
    """The names of the files in the source distribution, without the folder that holds all."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: set[str]) -> None:
    packages = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in files_of(ROOT / name)}
    facts = {name for name in wheel if name.split("/")[0].endswith(".dist-info")}
    assert wheel - facts == packages
    assert {name.partition("/")[2] for name in facts} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("pipelines/report/templates/*.html", 10),
        ("pipelines/report/assets/*.js", 10),
        ("pipelines/report/assets/*.css", 5),
        ("pipelines/review/page/*.*", 4),
        ("pipelines/builtin/*/model.onnx", 6),
        ("pipelines/builtin/*/card.md", 6),
        ("pipelines/demo_images/magnetic_tile/train/*/*.jpg", 240),
        ("pipelines/demo_images/magnetic_tile/test/*/*.jpg", 28),
        ("pipelines/demo_images/photographs/*/*.png", 1),
        ("pipelines/demo_images/*/SOURCE.md", 2),
        ("*/py.typed", 3),
    ],
)
def test_the_wheel_holds_what_no_import_would_miss(wheel: set[str], pattern: str, least: int) -> None:
    found = [name for name in wheel if PurePosixPath(name).match(pattern)]
    assert len(found) >= least


def test_neither_holds_caches_and_the_wheel_holds_no_tests(wheel: set[str], source: set[str]) -> None:
    unwanted = ("__pycache__", ".venv", ".git", "site", "demo-out", "dist")
    assert [name for name in wheel | source if set(PurePosixPath(name).parts) & set(unwanted)] == []
    assert [name for name in wheel if name.endswith(".pyc") or PurePosixPath(name).parts[0] == "tests"] == []


def test_the_source_distribution_can_be_set_up_and_tested(source: set[str]) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in files_of(ROOT) if not path.is_symlink()}
    assert needed - source == set()
