"""Workflows, templates and the citation follow their schemas; jobs call the Makefile and have few rights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import release
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
JOBS = [
    (path.stem, name, job)
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
]
each_job = pytest.mark.parametrize(("workflow", "name", "job"), JOBS, ids=[f"{job[0]}-{job[1]}" for job in JOBS])


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.github-issue-forms", [GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("fault", "idea")]),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_follow_their_schema(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_a_test_a_site_and_a_release() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "test"]


@each_job
def test_what_a_job_runs_is_a_target_of_the_makefile(workflow: str, name: str, job: dict[str, Any]) -> None:
    """What fails there can be run here. System packages and the page of a release are the exceptions."""
    commands = [step["run"] for step in job["steps"] if "run" in step]
    others = [command for command in commands if not re.match(r"make [a-z]", command)]
    assert [command for command in others if not re.match(r"sudo apt-get update|gh release create", command)] == []
    made = {word for command in commands for word in re.findall(r"^make ([a-z]+)", command)}
    assert made <= TARGETS


@each_job
def test_actions_are_pinned_by_major_version(workflow: str, name: str, job: dict[str, Any]) -> None:
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_unless_a_job_says_more(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
    assert rights == {
        "docs": {"publish": {"pages": "write", "id-token": "write"}},
        "release": {"attach": {"contents": "write"}, "publish": {"id-token": "write"}},
    }.get(path.stem, {})


@each_job
def test_a_job_with_rights_runs_no_code_of_the_repository(workflow: str, name: str, job: dict[str, Any]) -> None:
    """What a pull request or a dependency changes runs without a token that can write."""
    steps = job["steps"]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert not (checkouts and "permissions" in job)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A repository whose version may be released."""
    for name in ("pyproject.toml", "CHANGELOG.md", "CITATION.cff", "docker-compose.yml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    project = tmp_path / "pyproject.toml"
    project.write_text(re.sub(r'"https://kintsugi\.example/', '"https://kintsugi.org/', project.read_text()))
    return tmp_path


def version_of(root: Path) -> str:
    return re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_a_version_that_is_ready_may_be_released(ready: Path) -> None:
    assert list(release.find_faults(ready, f"v{version_of(ready)}")) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("CHANGELOG.md", r"^## \[[\d.]+\] - .*$", "## [Soon]", "has no line"),
        ("CITATION.cff", r"^version: .*$", "version: 0.0.9", "states version 0.0.9"),
        ("CITATION.cff", r"^date-released: .*$", 'date-released: "2001-01-01"', "set one date"),
        ("docker-compose.yml", r"image: kintsugi:[\d.]+", "image: kintsugi:0.0.9", "names no image"),
        ("pyproject.toml", r"https://kintsugi\.org/docs\"", 'https://docs.example.com/"', "where nothing can be"),
    ],
)
def test_what_is_missing_is_named(ready: Path, file: str, old: str, new: str, fault: str) -> None:
    path = ready / file
    changed, count = re.subn(old, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(changed)
    (found,) = release.find_faults(ready, None)
    assert fault in found


def test_another_tag_is_refused(ready: Path) -> None:
    (found,) = release.find_faults(ready, "v9.9.9")
    assert f"tag v{version_of(ready)}" in found
