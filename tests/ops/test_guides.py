"""Commands and job files of the documents: verbs, options, targets and keys exist. Nothing runs."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import reference
from typer.core import TyperGroup
from typer.exceptions import TyperException

from pipelines.errors import JobError
from pipelines.jobfile.job import job_from_document, task_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
    *sorted((ROOT / "docs" / "concepts").glob("*.md")),
    *(ROOT / "docs" / "reference" / name for name in ("environment.md", "output-folder.md")),
]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"[A-Z_]+=\S*")
COMMANDS = dict(reference.list_commands())
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
LEAST: dict[str, dict[str, Any]] = {
    "segment": {"labels": "labels"},
    "unpaired": {"degraded": "damaged", "clean": "clean"},
}


class Line(NamedTuple):
    document: str
    words: tuple[str, ...]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for indent, found, text in BLOCK.findall(document.read_text(encoding="utf-8")):
            if found == language:
                yield str(document.relative_to(ROOT)), re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def split(text: str) -> Iterator[tuple[str, ...]]:
    """The words of each command of a block, without prompts, variables and comments."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:
            continue  # a sentence with an apostrophe, in an example of output
        for is_end, part in itertools.groupby(words, lambda word: word == "&&"):
            if not is_end:
                yield tuple(itertools.dropwhile(VARIABLE.fullmatch, part))


LINES = [Line(document, words) for document, text in blocks("") for words in split(text) if words]
KINTSUGI = [line for line in LINES if Path(line.words[0]).name == "kintsugi"]


def fault_of(words: tuple[str, ...]) -> str | None:
    """What the command line would refuse, if it read a command."""
    if any(word.startswith("[") for word in words):
        return None  # how a command is used: the reference has it
    name = "kintsugi"
    rest = list(words[1:])
    while rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
    command = COMMANDS[name]
    if isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        return f"there is no command {name} {rest[0]}"
    try:
        command.make_context(name, [word for word in rest if word != "..."])
    except TyperException as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("line", KINTSUGI, ids=lambda line: " ".join(line.words)[:70])
def test_commands_exist_with_their_options(line: Line) -> None:
    assert fault_of(line.words) is None, line.document


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kintsugi score images --model m --out o", None),
        ("kintsugi score images --model m", "Missing option '--out'"),
        ("kintsugi score images --model m --out o --budgets 3", "No such option"),
        ("kintsugi score images --model m --out o --budget many", "valid integer"),
        ("kintsugi score images more --model m --out o", "unexpected extra argument"),
        ("kintsugi models swap tiles", "there is no command"),
        ("kintsugi scores images", "there is no command"),
    ],
)
def test_faults_are_found(text: str, fault: str | None) -> None:
    found = fault_of(tuple(text.split()))
    assert found is None if fault is None else fault in (found or "")


def test_the_documents_have_commands() -> None:
    assert len(KINTSUGI) > 60
    assert {"train", "score", "restore", "evaluate", "review", "serve", "models", "embed", "explore", "sample"} <= {
        line.words[1] for line in KINTSUGI if len(line.words) > 1
    }


def test_make_targets_and_scripts_exist() -> None:
    made = [(line.document, word) for line in LINES if line.words[0] == "make" for word in line.words[1:2]]
    assert len(made) > 5
    assert [each for each in made if each[1] not in TARGETS] == []
    first = [(line.document, word) for line in LINES for word in line.words[:2]]
    scripts = [each for each in first if re.match(r"(scripts|docker)/", each[1])]
    assert len(scripts) > 2
    assert [each for each in scripts if not (ROOT / each[1]).is_file()] == []


def is_job(document: dict[str, Any]) -> bool:
    """Whether a whole job, or a part of one, is valid for any task."""
    for task in [document["task"]] if "task" in document else task_names():
        data = LEAST.get(task, {}) if task == "unpaired" else {"train": "images"} | LEAST.get(task, {})
        whole = {"name": "tiles", "task": task} | document
        if "task" not in document:
            whole["data"] = data | document.get("data", {})
        try:
            job_from_document(whole, ROOT / "job.toml")
        except JobError:
            continue
        return True
    return False


@pytest.mark.parametrize(("document", "text"), list(blocks("toml")))
def test_job_files_are_valid(document: str, text: str) -> None:
    assert is_job(tomllib.loads(text)), document


@pytest.mark.parametrize("text", ["[data]\ntrains = 'x'", "[model]\nscale = 7", "task = 'mend'", "name = 'a/b'"])
def test_wrong_job_files_are_found(text: str) -> None:
    assert not is_job(tomllib.loads(text))
