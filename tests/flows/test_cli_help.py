"""What the command says of itself: versions, help for everything, and what that does not import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from typer.main import get_command

from flows.cli import REF, app
from pipelines.base.software import software_version
from pipelines.models.reference import FORMS


def imported_by(code: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in found.stdout.split()}


def test_the_version_is_told_with_what_it_runs_on(kintsugi) -> None:
    done = kintsugi("--version")
    python = ".".join(map(str, sys.version_info[:3]))
    runtime = rf"onnxruntime(-gpu)? {re.escape(onnxruntime.__version__)}"
    assert re.fullmatch(rf"kintsugi {re.escape(software_version())} \(Python {python}, {runtime}\)\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_needs_nothing_heavy(option: str) -> None:
    code = f"from flows.cli import app; from typer.testing import CliRunner; CliRunner().invoke(app, ['{option}'])"
    heavy = {"torch", "mlflow", "prefect", "onnxruntime", "pyarrow", "numpy", "scipy", "PIL", "pydantic"}
    assert not heavy & imported_by(code)


def test_scoring_imports_neither_torch_nor_mlflow_nor_prefect() -> None:
    assert not {"torch", "mlflow", "prefect", "vaecore", "lightning"} & imported_by(
        "import pipelines.score, pipelines.evaluate"
    )


def test_every_command_and_option_has_help() -> None:
    def walk(command, name: str):
        yield name, command
        for inner, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, f"{name} {inner}")

    for name, command in walk(get_command(app), "kintsugi"):
        assert command.help, f"{name} has no help"
        for parameter in command.params:
            assert parameter.name == "help" or parameter.help, f"{name}: {parameter.name} has no help"


def test_the_forms_of_a_reference_are_the_same_everywhere() -> None:
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    forms = ("name@champion", "name@alias", "name/3", "models:/name/3", "builtin:NAME")
    assert f"{', '.join(forms)}, or the path of an .onnx file" == REF
    assert FORMS.startswith(", ".join(forms))
    assert f"{', '.join(f'`{form}`' for form in forms)}, or the path of an `.onnx` file" in readme


def test_every_command_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name in get_command(app).commands:
        assert f"kintsugi {name}" in readme, name
