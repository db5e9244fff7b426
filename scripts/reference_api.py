"""The reference pages of the Python API and of the model file's metadata, for scripts/reference.py."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pipelines
from pipelines.models.model_file import (
    METADATA_KEY,
    ColorizationMetadata,
    CommonMetadata,
    Metadata,
    RestorationMetadata,
    SegmentationMetadata,
)

SECTION = re.compile(r"^(Args|Returns|Raises|Source|Yields):\n", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): ((?:.+)(?:\n {8,}.+)*)", re.MULTILINE)
FIELD = re.compile(
    r"^    (?P<name>\w+): (?P<type>.+?)(?: = (?P<default>[^#\n]+?))?(?:  # (?P<comment>.+))?\n"
    r"(?:    \"\"\"(?P<text>[^\"]+)\"\"\"\n)?",
    re.MULTILINE,
)
KINDS = {
    "Every model": CommonMetadata,
    "Models that score": Metadata,
    "Models that restore": RestorationMetadata,
    "Models that label pixels": SegmentationMetadata,
    "Models that colour": ColorizationMetadata,
}
Row = list[str]


def list_api() -> dict[str, Any]:
    """Return the public functions and classes, functions first."""
    found = {name: getattr(pipelines, name) for name in pipelines.__all__}
    return dict(sorted(found.items(), key=lambda item: (inspect.isclass(item[1]), item[0])))


def split_docstring(text: str) -> dict[str, str]:
    r"""Return the parts of a docstring by their headings; what comes before any has the empty name.

    >>> split_docstring("Do it.\n\nReturns:\n    What was done.\n")
    {'': 'Do it.', 'Returns': 'What was done.'}
    """
    first, *others = SECTION.split(inspect.cleandoc(text))
    parts = {"": first, **dict(zip(others[::2], others[1::2], strict=True))}
    return {name: inspect.cleandoc(part) if name != "Args" else part.rstrip() for name, part in parts.items()}


def describe(name: str) -> tuple[str, dict[str, str], list[Row]]:
    """Return the signature, the docstring's parts, and a row of each parameter or field: name, type, default, text."""
    thing = list_api()[name]
    parts = split_docstring(inspect.getdoc(thing) or "")
    if dataclasses.is_dataclass(thing):
        return f"class {name}", parts, list(_rows_of_fields(inspect.getsource(list_api()[name])))
    texts = {key: " ".join(text.split()) for key, text in ENTRY.findall(parts.get("Args", ""))}
    rows: list[Row] = []
    words: list[str] = []
    for each in inspect.signature(thing).parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(each.name if each.default is each.empty else f"{each.name}={each.default!r}")
        default = "required" if each.default is each.empty else f"`{each.default!r}`"
        rows.append([f"`{each.name}`", f"`{each.annotation}`", default, texts.get(each.name, "")])
    return f"{name}({', '.join(words)})", parts, rows


def describe_metadata(record: type) -> list[Row]:
    """Return a row of each field that a record of the metadata adds: name, type, default, text."""
    return list(_rows_of_fields(inspect.getsource(record)))


def _rows_of_fields(source: str) -> Iterator[Row]:
    """Yield what a class states of its fields: types and defaults as written, and the comment beside each."""
    one_line = re.sub(r"\[\n\s+(.+?),?\n\s+\]", r"[\1]", source)
    for each in FIELD.finditer(one_line):
        if each["name"] in ("model_config", "msg"):
            continue
        text = " ".join((each["comment"] or each["text"] or "").split())
        default = "required" if each["default"] is None else f"`{each['default'].strip()}`"
        yield [
            f"`{each['name']}`",
            f"`{each['type']}`",
            default,
            text if text[1:2] == " " else text[:1].upper() + text[1:],
        ]


def python_lines() -> Iterator[str]:
    """Yield the page of the Python API, without its tables: each is announced by a line with the name alone."""
    yield from ("<!-- Written by scripts/reference_api.py from pipelines/__init__.py. -->", "", "# Python API", "")
    yield from ("Each command of the command line is a function. It is imported when it is first used.", "")
    yield from ("```python", "from pipelines import score_folder, train_model", "", 'train_model("tiles.toml")')
    yield from ('summary = score_folder("images/new", "tiles@champion", "report", false_alarms=0.05)', "```", "")
    yield from ("Errors that a user can fix are `pipelines.errors.KintsugiError`. Their text has the next step.", "")


def metadata_lines() -> Iterator[str]:
    """Yield the head of the page of the model file."""
    yield from ("<!-- Written by scripts/reference_api.py from pipelines/models/model_file.py. -->", "")
    yield from ("# Model file", "")
    yield f"A model is one ONNX file. Its metadata has one key, `{METADATA_KEY}`, whose value is a JSON document."
    yield "Training writes it and scoring reads it: no other file states the same facts. Later versions may add fields,"
    yield "and older readers ignore them. [The model file](../guides/registry.md#the-model-file) lists what lies beside"
    yield "it."
    yield ""
    yield from ("```python", "import json", "import onnxruntime", "")
    yield 'session = onnxruntime.InferenceSession("model.onnx")'
    yield f'print(json.loads(session.get_modelmeta().custom_metadata_map["{METADATA_KEY}"]))'
    yield from ("```", "")
