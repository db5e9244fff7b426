"""The reference pages are what the code says, name everything that a user can set, and describe it."""

from __future__ import annotations

import doctest
import inspect
import re
import tomllib
from typing import Annotated

import pytest
import reference
import reference_api
from pydantic import TypeAdapter

import pipelines
from pipelines.jobfile.job import Job, load_job, task_names
from pipelines.jobfile.tables import kinds_in
from pipelines.models.model_file import CommonMetadata
from vaecore.experts import EXPERTS
from vaecore.likelihoods import IMAGE_LIKELIHOODS
from vaecore.tasks import restorations, scoring_tasks

TABLES = reference.list_tables()
FIELDS = {("", name): field for name, field in reference.list_keys(Job).items()} | {
    (table, name): field for table, record in TABLES.items() for name, field in reference.list_keys(record).items()
}
PAGES = ("job-file.md", "command-line.md")
COMMANDS = dict(reference.list_commands())
SET, LEFT_OUT = r"(\w+) = ", r"# (\w+) = (.+?)(?:  +# .*)?"


def sections(name):
    """The parts of a page, by their headings."""
    parts = re.split(r"^## (.+)\n", (reference.FOLDER / name).read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section):
    """The cells of each row of a section's table, by the first name in it."""
    lines = re.findall(r"^\| `.+", section, re.MULTILINE)
    cells = [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]
    return {row[0]: row for row in cells}


def assignments(pattern):
    """The keys of the example whose lines are of a pattern: table, key and what follows."""
    table = ""
    for line in reference.EXAMPLE.read_text("utf-8").splitlines():
        if head := re.match(r"\[(\w+)\]", line):
            table = head[1]
        elif found := re.fullmatch(pattern, line):
            yield table, *found.groups()


def test_all_pages_are_current():
    reference.main(["--check"])


def test_an_old_page_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match=r"job-file\.md, .*model-file\.md: run scripts/reference\.py"):
        reference.main(["--check"])
    reference.main([])
    reference.main(["--check"])
    page = tmp_path / "job-file.md"
    page.write_text(page.read_text("utf-8").replace("registry", "list"), "utf-8")
    with pytest.raises(SystemExit, match=r"since job-file\.md: "):
        reference.main(["--check"])


@pytest.mark.parametrize("table", ["", *TABLES])
def test_every_key_has_a_row_with_type_default_and_description(table):
    found = rows(sections("job-file.md")[f"[{table}]" if table else "Keys outside of tables"])
    assert list(found) == [f"`{name}`" for owner, name in FIELDS if owner == table]
    assert [row for row in found.values() if len(row) != 4 or not all(row)] == []


@pytest.mark.parametrize(("table", "name"), FIELDS)
def test_descriptions_are_sentences(table, name):
    text = FIELDS[table, name].description
    assert re.fullmatch(r"[A-Z`].*\.", text)
    sentences = re.split(r"(?<=[.:;]) ", re.sub(r"`[^`]*`", "code", text))
    assert [sentence for sentence in sentences if len(sentence.split()) > 25] == []


def test_choices_that_the_code_looks_up_are_named():
    damages = [name for task in restorations().values() for name in task.damages]
    targets = [name for task in scoring_tasks().values() for name in task.targets]
    named = {
        ("", "task"): task_names(),
        ("model", "target"): targets,
        ("model", "experts"): EXPERTS,
        ("model", "likelihood"): IMAGE_LIKELIHOODS,
        ("model", "prior"): kinds_in("vaecore.priors"),
        ("model", "damage"): damages,
    }
    missing = [
        (key, name) for key, names in named.items() for name in names if f"`{name}`" not in FIELDS[key].description
    ]
    assert missing == []


def test_the_least_job_file_works(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(reference.LEAST, "utf-8")
    assert load_job(path).name == "tiles"
    assert (reference.FOLDER / "job-file.md").read_text("utf-8").index(reference.LEAST) < 500


def test_the_example_is_a_job():
    job = load_job(reference.EXAMPLE)
    assert job.task == "reconstruct"


def test_the_example_has_every_key_and_no_other():
    found = [key[:2] for pattern in (f"{SET}.+", LEFT_OUT) for key in assignments(pattern)]
    assert sorted(found) == sorted(FIELDS)


@pytest.mark.parametrize(("table", "name", "value"), list(assignments(LEFT_OUT)))
def test_values_that_the_example_leaves_out_are_of_the_keys(table, name, value):
    field = FIELDS[table, name]
    TypeAdapter(Annotated[field.annotation, field]).validate_python(tomllib.loads(f"it = {value}")["it"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_argument_and_option_is_described(name):
    section, parameters = sections("command-line.md")[name], reference.list_parameters(COMMANDS[name])
    found = rows(section)
    assert [row for row in found.values() if len(row) != 4 or not all(row)] == []
    assert COMMANDS[name].help
    assert len(found) == len(parameters)
    for each, row in zip(parameters, found, strict=True):
        options = [*each.opts, *each.secondary_opts]
        assert [option for option in options if option.startswith("-") and not re.search(rf"`{option}[ `]", row)] == []
        assert each.help


def test_exit_codes_are_listed():
    assert re.findall(r"^\| (\d+) \|", sections("command-line.md")["Exit codes"], re.MULTILINE) == [
        "0",
        "1",
        "2",
        "3",
        "130",
    ]


def test_placeholders_are_no_html():
    """A browser would hide `<defect>`."""
    assert reference.escape("a <b> | `<c>*`") == r"a \<b> \| `<c>*`"
    texts = [path.read_text("utf-8") for path in map(reference.FOLDER.joinpath, PAGES)]
    outside = [re.sub(r"^```.*?^```$|`[^`\n]*`|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL) for text in texts]
    assert [found for text in outside for found in re.findall(r"(?<!\\)<\w+>", text)] == []


def test_examples_in_docstrings_are_true():
    for module in (reference, reference_api):
        failed, tried = doctest.testmod(module)
        assert tried
        assert not failed


@pytest.mark.parametrize("name", pipelines.__all__)
def test_every_public_name_and_argument_is_described(name):
    found = rows(sections("python.md")[name])
    parameters = inspect.signature(getattr(pipelines, name)).parameters
    assert list(found) == [f"`{each}`" for each in parameters]
    assert [row for row in found.values() if len(row) != 4 or not all(cell.strip() for cell in row)] == []


@pytest.mark.parametrize(("title", "record"), reference_api.KINDS.items())
def test_every_field_of_the_metadata_is_described(title, record):
    common = set() if record is CommonMetadata else set(CommonMetadata.model_fields)
    found = rows(sections("model-file.md")[title])
    assert list(found) == [f"`{name}`" for name in record.model_fields if name not in common]
    assert [row for row in found.values() if len(row) != 4 or not all(cell.strip() for cell in row)] == []
    for name, row in zip([name for name in record.model_fields if name not in common], found.values(), strict=True):
        assert (row[2] == "required") == record.model_fields[name].is_required()
