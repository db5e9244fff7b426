"""What holds for every file: no trace of a machine, nothing huge, and the layers that the design promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.base.software import DISTRIBUTION

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2 * 2**20
MAX_LINES = 400
# A registry's address in any of the forms that installers read or write.
REGISTRY = re.compile(
    r"--(?:extra-)?index-url[ =]+\S*//|--find-links|-f[ =]+\S*//|(?:PIP|UV)_\w*INDEX\w*[ =]+\S*//"
    r"|^\s*(?:index-url|find-links)\s*=|files\.pythonhosted\.org|\bpypi\.org/simple",
    re.MULTILINE,
)
SCORING = (
    "import pipelines.models.session, pipelines.score, pipelines.restore, pipelines.embed, pipelines.report, "
    "pipelines.images, pipelines.models.reference"
)
HEAVY = ("torch", "torchvision", "lightning", "vaecore", "mlflow", "prefect", "flows")
LOCKS = ("requirements.lock", "requirements-worker.lock")


def git(*arguments):
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def repository_files():
    """What git has or would add: committed files and new ones that are not ignored."""
    listing = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listing.returncode:  # an unpacked release has no history, and no ignored files either
        hidden = {".venv", ".uv", "demo-out"}
        return [path for path in ROOT.rglob("*") if path.is_file() and hidden.isdisjoint(path.parts)]
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts():
    """The text files, but this one, which has to name what it looks for."""
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" not in content and path != Path(__file__):
            yield path.relative_to(ROOT), content.decode(errors="replace")


def modules():
    return [path for path in repository_files() if path.suffix == ".py"]


def test_no_file_names_this_machine():
    """Neither where the checkout lies nor whose it is; CI and every developer check their own."""
    places = [ROOT, Path.home(), ROOT.parent]
    # Every machine has these: naming them says nothing of this one.
    names = ("", "data", "home", "mnt", "opt", "srv", "tmp", "usr", "var", "var/tmp")
    common = {Path("/", name) for name in names}
    patterns = [re.escape(str(place)) + r"(?=[/\s'\"`:;,)]|$)" for place in places if place not in common]
    pattern = re.compile(r"(?<![\w.$}~])(?:" + "|".join(patterns) + r")")
    found = [f"{name}: {match[0]}" for name, text in texts() if (match := pattern.search(text))]
    assert found == []


def test_no_file_names_a_registry():
    found = [f"{name}: {match[0].strip()}" for name, text in texts() if (match := REGISTRY.search(text))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.invalid/simple",
        "--find-links /mnt/wheels",
        "UV_DEFAULT_INDEX=https://x.invalid/simple",
    ],
)
def test_registry_pattern_sees_addresses(line):
    assert REGISTRY.search(line)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_and_hash_everything(lock):
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[\w.\-\[\]]+==\S+", entry), f"not pinned: {entry.splitlines()[0]}"
        assert "--hash=sha256:" in entry, f"no hash: {entry.splitlines()[0]}"


def test_locks_agree():
    """What scores on a worker is what was tested."""
    pins = [dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS]
    everything, worker = pins
    assert {name: everything.get(name) for name in worker} == worker
    assert not set(worker) & {"torch", "mlflow", "prefect", "lightning"}


def test_locks_cover_the_declared_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"] + [
        line for group in project["dependency-groups"].values() for line in group
    ]
    extras = project["project"]["optional-dependencies"]
    # `bench` is for whoever may use what it brings.
    assert extras["all"] == [f"{DISTRIBUTION}[train,registry,flows,review,heif,lite2]"]
    declared += [line for name, extra in extras.items() if name != "bench" for line in extra]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in declared} - {DISTRIBUTION}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert names - locked == set(), "run `make lock`"


def test_no_large_files():
    """The models that ship have a limit of their own, all together (tests/pipelines/models/test_builtin.py)."""
    shipped = ROOT / "pipelines" / "builtin"
    files = (path for path in repository_files() if not (path.is_relative_to(shipped) and path.suffix == ".onnx"))
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in files}
    assert {name: size for name, size in large.items() if size > MAX_BYTES} == {}


def test_modules_stay_readable():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_nothing_is_left_for_later():
    pattern = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b|type: ignore(?!\[)")
    found = [str(path.relative_to(ROOT)) for path in modules() if pattern.search(path.read_text())]
    assert [name for name in found if name != str(Path(__file__).relative_to(ROOT))] == []


@pytest.mark.parametrize("name", [".env", "demo-out/report.html", ".venv/bin/python", ".uv/bin/uv"])
def test_secrets_and_outputs_are_ignored(name):
    rules = (ROOT / ".gitignore").read_text().splitlines()
    assert name.split("/")[0] in {rule.strip("/") for rule in rules}


@pytest.mark.parametrize("name", [".ci/run", "scripts/bootstrap", "docker/generate-env", "docker/postgres-init.sh"])
def test_scripts_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!")


def test_make_setup_ends_with_what_to_do_next():
    command = ["make", "--no-print-directory", "--dry-run", "setup"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('echo "')
    assert ".venv/bin/kintsugi train JOB.toml" in done.stdout.splitlines()[-1]


def test_scripts_parse():
    for shell, name in [("sh", "scripts/bootstrap"), ("bash", ".ci/run"), ("bash", "docker/postgres-init.sh")]:
        done = subprocess.run([shell, "-n", ROOT / name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_scoring_imports_nothing_heavy():
    """In a process of its own: this one has imported everything by now."""
    program = f"{SCORING}; import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_layers_hold():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_of_the_house_is_current():
    command = [sys.executable, ROOT / "scripts" / "house.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_that_moved_are_where_the_list_says():
    rows = re.findall(
        r"^\| `[\w.]+` \| `((?:pipelines|vaecore)[\w.]*)`", (ROOT / "docs/moved-modules.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 100
    places = [ROOT / name.replace(".", "/") for name in rows]
    assert [place for place in places if not place.is_dir() and not place.with_suffix(".py").is_file()] == []


def test_the_worked_example_of_a_task_works():
    """The code block of CONTRIBUTING.md defines a task, and its damage does what its level says."""
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    program = (
        f"{code}\nloss, y = torch.tensor([0.5]), torch.ones(1, 3, 9, 13)\n"
        "(damage,) = TASK.damages.values()\n"
        "c = damage(y, loss, torch.Generator())\n"
        "assert c[0, 0, 4, 6] == 1 and torch.allclose(c[0, :, 0, 0], loss), c"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_contract_without_torch_names_every_verb_of_a_worker():
    """It holds for what these import, too; a verb that is not named may import anything."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["id"] == "scoring-without-torch"]
    assert {"pipelines.score", "pipelines.restore", "pipelines.embed"} <= set(contract["source_modules"])


def test_licence_is_the_apache_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert len(text.splitlines()) == 202
