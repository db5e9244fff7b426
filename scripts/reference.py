#!/usr/bin/env python3
"""Write the reference pages from the code: job file, command line, Python API, model file.

    scripts/reference.py            # writes them
    scripts/reference.py --check    # ends with 1 where one is not what the code says

The descriptions are those of the fields in pipelines/jobfile and of the options in flows. A description whose last
sentence begins with "Default:" states in words what Kintsugi chooses where the key is left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pydantic.fields import FieldInfo  # noqa: E402
from reference_api import KINDS as KINDS_OF_METADATA  # noqa: E402
from reference_api import describe, describe_metadata, list_api, metadata_lines, python_lines  # noqa: E402
from typer.core import TyperArgument, TyperGroup, TyperOption  # noqa: E402
from typer.main import get_command  # noqa: E402

from flows.cli import app  # noqa: E402
from flows.terminal import DONE, FAULT, INTERRUPTED, SOME_FAILED, WRONG  # noqa: E402
from pipelines.jobfile.job import Job, to_toml  # noqa: E402
from pipelines.jobfile.tables import Age, LocalPath, Record  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
EXAMPLE = ROOT / "scripts" / "reference_job.toml"
LEAST = """\
name = "tiles"
task = "reconstruct"

[data]
train = "images/good"
"""
CODES = {
    DONE: "Done.",
    FAULT: "A fault of Kintsugi itself, with a traceback. Please report it.",
    WRONG: "Wrong usage or bad input. Nothing was done.",
    SOME_FAILED: "Done, but some files or folders failed. Each of them is listed.",
    INTERRUPTED: "Stopped by Ctrl-C.",
}
KINDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}
LIMITS = {"gt": "above {:g}", "ge": "at least {:g}", "lt": "below {:g}", "le": "at most {:g}"}
NOTHING = "-"


class Limits(NamedTuple):
    """The least and the most that an option may be, named as pydantic names them."""

    ge: float | None
    le: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description="Write the reference pages.")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")
    check = parser.parse_args(arguments).check
    writers = {
        "job-file.md": write_job_file,
        "command-line.md": write_command_line,
        "python.md": write_python,
        "model-file.md": write_model_file,
    }
    pages = {FOLDER / name: write() for name, write in writers.items()}
    if check:
        old = [path.name for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
        if old:
            sys.exit(f"docs/reference: the code has changed since {', '.join(old)}: run scripts/reference.py")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages.items():
        path.write_text(text, "utf-8")


def write_job_file() -> str:
    """Return the page of the job file."""
    tables = list_tables()
    lines = [
        "<!-- Written by scripts/reference.py from pipelines/jobfile. -->",
        "",
        "# Job file",
        "",
        "A job file is a TOML file that describes one model. This is the shortest one that works:",
        "",
        *_block(LEAST, "toml"),
        "All other keys have defaults. Kintsugi chooses many of them from your images, and prints its choice.",
        "",
        "- Relative paths begin at the folder of the job file. Any path may begin with `~`.",
        "- The file is UTF-8 text. It may come from Windows (byte-order mark, CRLF).",
        "- A misspelt key is an error that names the likely one.",
        '- On this page, "models that restore images" includes models that label or colour images.',
        "- `kintsugi train JOB.toml --set train.steps=500` replaces a key for one training.",
        "- The environment, not the job file, sets where things run: see [environment](environment.md).",
        "",
        "## Example",
        "",
        "This job has every key. Lines that begin with `# key =` are for other tasks or other kinds of model.",
        "",
        *_block(EXAMPLE.read_text("utf-8"), "toml"),
        "## Keys outside of tables",
        "",
        *_grid(["key", "type", "default", "description"], _describe_keys(list_keys(Job))),
    ]
    for name, table in tables.items():
        text = " ".join((table.__doc__ or "").split()).removeprefix(f"`[{name}]`: ")
        rows = _describe_keys(list_keys(table))
        lines += [f"## [{name}]", "", text[:1].upper() + text[1:], ""]
        lines += _grid(["key", "type", "default", "description"], rows)
    return "\n".join(lines).rstrip() + "\n"


def list_tables() -> dict[str, type[Record]]:
    """Return the tables of the job file, by name."""
    kinds = {name: field.annotation for name, field in Job.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Record)}


def list_keys(record: type[Record]) -> dict[str, FieldInfo]:
    """Return the keys that a user may set in a table, or outside of all tables."""
    tables = list_tables().values()
    return {
        name: field
        for name, field in record.model_fields.items()
        if not field.exclude and field.annotation not in tables
    }


def split_default(field: FieldInfo) -> tuple[str, str]:
    """Return a key's description and its default, both in words."""
    text, _, chosen = (field.description or "").partition(" Default: ")
    if field.is_required():
        return text, "required"
    if field.default is None:
        chosen = chosen.rstrip(".")
        return text, chosen or NOTHING
    return text, f"`{to_toml(field.default)}`"


def describe_type(annotation: Any, limits: Iterable[object] = ()) -> str:  # noqa: ANN401 - of any field
    """Return a type in words.

    >>> describe_type(Literal["a", "b"] | None), describe_type(tuple[int, ...] | str)
    ('`"a"` or `"b"`', 'list of whole numbers, or text')
    """
    if annotation == LocalPath:
        return "path"
    if annotation == Age:
        return "length of time"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(parts[0], [*limits, *_flatten(parts[1:])])
    if origin in (Union, UnionType):
        return ", or ".join(describe_type(part, limits) for part in parts if part is not type(None))
    if origin is Literal:
        return _either([f"`{to_toml(part)}`" for part in parts])
    if origin in (tuple, list):
        count = "" if origin is list or parts[-1] is Ellipsis else f"{len(parts)} "
        least, most = (_find(limits, f"{name}_length") for name in ("min", "max"))
        count = count if least is None else f"{least} to {most} "
        return f"list of {count}{_plural(describe_type(parts[0]))}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _either([f"`{each.value}`" for each in annotation])
    bounds = [(name, _find(limits, name)) for name in LIMITS]
    if annotation is int:  # above 0 is at least 1
        bounds = [("ge", bound + 1) if name == "gt" and bound is not None else (name, bound) for name, bound in bounds]
    words = [LIMITS[name].format(bound) for name, bound in bounds if bound is not None]
    return f"{KINDS[annotation]}{', ' * bool(words)}{' and '.join(words)}"


def write_command_line() -> str:
    """Return the page of the command line."""
    commands = dict(list_commands())
    lines = [
        "<!-- Written by scripts/reference.py from flows/cli.py. -->",
        "",
        "# Command line",
        "",
        "`kintsugi COMMAND --help` prints the same. Any path may begin with `~`.",
        "",
        *_grid(
            ["command", "what it does"],
            ([f"[`{name}`](#{name.replace(' ', '-')})", command.help or ""] for name, command in commands.items()),
        ),
        "## Exit codes",
        "",
        *_grid(["code", "meaning"], ([str(code), meaning] for code, meaning in CODES.items())),
        "After Ctrl-C, the last line on stderr says whether the same command continues or starts again. "
        f"`kintsugi doctor` exits with {WRONG} if something does not work.",
        "",
    ]
    for name, command in commands.items():
        lines += [f"## {name}", "", escape(command.help or ""), ""]
        parameters = list_parameters(command)
        lines += _block(" ".join([name, *_usage(command)]))
        if parameters:
            rows = ([_name(each), _type(each), _default(each), each.help or ""] for each in parameters)
            lines += _grid(["argument or option", "type", "default", "description"], rows)
    return "\n".join(lines).rstrip() + "\n"


def write_python() -> str:
    """Return the page of the Python API."""
    lines = [*python_lines()]
    for name in list_api():
        signature, parts, rows = describe(name)
        lines += [f"## {name}", "", *_block(signature, "python"), parts[""], ""]
        lines += _grid(["argument" if "(" in signature else "field", "type", "default", "description"], rows)
        for title in ("Returns", "Raises"):
            if title in parts:
                lines += [f"{title}: {' '.join(parts[title].split())}", ""]
    return "\n".join(lines).rstrip() + "\n"


def write_model_file() -> str:
    """Return the page of the model file's metadata."""
    lines = [*metadata_lines()]
    for title, record in KINDS_OF_METADATA.items():
        lines += [f"## {title}", ""]
        lines += _grid(["field", "type", "default", "description"], describe_metadata(record))
    return "\n".join(lines).rstrip() + "\n"


def list_commands(command: Any = None, name: str = "kintsugi") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of Typer
    """Yield every command with its whole name, a group before its commands."""
    command = get_command(app) if command is None else command
    if command.hidden:
        return
    yield name, command
    if isinstance(command, TyperGroup):
        for word, below in command.commands.items():
            yield from list_commands(below, f"{name} {word}")


def list_parameters(command: Any) -> list[TyperArgument | TyperOption]:  # noqa: ANN401 - of Typer
    """Return the arguments and options of a command, without `--help`, which all have."""
    return [each for each in command.params if not each.hidden]


def _usage(command: Any) -> Iterator[str]:  # noqa: ANN401 - of Typer
    """Yield the parts of a command line that has all that is required."""
    if isinstance(command, TyperGroup):
        yield "[COMMAND]" if command.invoke_without_command else "COMMAND"
        return
    parameters = list_parameters(command)
    for each in parameters:
        if isinstance(each, TyperArgument):
            yield _name(each).strip("`") if each.required else f"[{_name(each).strip('`')}]"
    for each in parameters:
        if isinstance(each, TyperOption) and each.required:
            yield f"{each.opts[0]} {each.metavar or each.opts[0].lstrip('-').upper()}"
    if any(isinstance(each, TyperOption) and not each.required for each in parameters):
        yield "[OPTIONS]"


def _name(parameter: TyperArgument | TyperOption) -> str:
    if isinstance(parameter, TyperArgument):
        many = "..." if parameter.nargs != 1 and not parameter.metavar else ""
        return f"`{parameter.metavar or parameter.name.upper()}{many}`"
    value = f" {parameter.metavar}" if parameter.metavar else ""
    return ", ".join(f"`{option}{value}`" for option in [*parameter.opts, *parameter.secondary_opts])


def _type(parameter: TyperArgument | TyperOption) -> str:
    if isinstance(parameter, TyperOption) and parameter.is_bool_flag:
        return "switch"
    kind: Any = parameter.type_descriptor.annotation
    given = parameter.type_descriptor.parameter_info
    if get_origin(kind) is list:
        word = describe_type(get_args(kind)[0])
        return f"{word}, one or more" if isinstance(parameter, TyperArgument) else f"{word}, may be repeated"
    return describe_type(kind, [Limits(given.min, given.max)])


def _default(parameter: TyperArgument | TyperOption) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if isinstance(parameter, TyperOption) and parameter.is_bool_flag:
        pair = (parameter.secondary_opts, parameter.opts)
        return f"`{pair[bool(default)][0]}`" if parameter.secondary_opts else ("on" if default else "off")
    if default is None:
        return NOTHING
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _describe_keys(keys: dict[str, FieldInfo]) -> Iterator[list[str]]:
    for name, field in keys.items():
        text, default = split_default(field)
        yield [f"`{name}`", describe_type(field.annotation, _flatten(field.metadata)), default, text]


def _flatten(metadata: Iterable[object]) -> list[object]:
    """Return the limits in a field's metadata, where a field may stand for its own."""
    return [part for each in metadata for part in (each.metadata if isinstance(each, FieldInfo) else [each])]


def _find(limits: Iterable[object], name: str) -> Any:  # noqa: ANN401 - a number
    return next((value for each in limits if (value := getattr(each, name, None)) is not None), None)


def escape(text: str) -> str:
    r"""Return a text for a cell of a table: no HTML and no emphasis, but for code between backticks.

    >>> escape("test/<defect>, tile* | `{piece}_*`")
    'test/\\<defect>, tile\\* \\| `{piece}_*`'
    """
    parts = text.split("`")
    parts[::2] = [re.sub(r"[<*]", r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _plural(words: str) -> str:
    """Return a type in words, of several: the noun takes an s, and limits hold for each."""
    if words.startswith("`"):
        return words
    noun, comma, limits = words.partition(", ")
    return f"{noun}s{comma and ', each '}{limits}"


def _block(text: str, language: str = "") -> list[str]:
    return [f"```{language}", *text.rstrip().splitlines(), "```", ""]


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in cells), ""]


if __name__ == "__main__":
    main()
