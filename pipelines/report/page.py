"""What every report page shares: one HTML file with its style, script and data inside, written whole or not at all.

A page is a template that extends `shell.html`, a list of style sheets and a list of scripts from `assets/`. Scripts are
joined in the order given inside one function, so that a later one calls the functions of an earlier one by name.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from pipelines.base.files import write_atomically
from pipelines.base.safe_text import printable
from pipelines.errors import FolderError
from pipelines.images.left_out import PICTURES
from pipelines.report import sentences, words
from pipelines.report.card import render_card

_HERE = Path(__file__).parent
# "<" ends a script element early, "&" is for readers that decode entities, the line separators end a line of script.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}

SHARED_STYLES = ("page.css", "compare.css", "lightbox.css")
SHARED_SCRIPTS = ("page.js", "compare.js", "lightbox.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """What one verb adds to the page of an output folder; `render_page` explains the rest."""

    template: str  # extends results.html
    facts: Mapping[str, object]
    columns: Mapping[str, object]  # of the table of all files
    data: Mapping[str, object]
    scripts: Sequence[str]


def escape_json(value: object) -> Markup:
    r"""Return JSON that is inert inside a script element.

    >>> print(escape_json("</script>"))
    "\u003c/script\u003e"
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))  # noqa: S704 - no character of it can leave the element


def pack(values: NDArray[np.generic], kind: str) -> str:
    """Return an array as base64 of little-endian numbers ("u1", "u4", "f4", "f8"), for `unpack` in page.js."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")


def render_page(
    template: str,
    facts: Mapping[str, object],
    *,
    data: Mapping[str, object],
    styles: Sequence[str],
    scripts: Sequence[str],
) -> str:
    """Render a page of `templates/`.

    Args:
        template: name of a template that extends shell.html.
        facts: what the template shows.
        data: what the scripts read with `readData(NAME)`: one JSON block for each key.
        styles: files of assets/, in order.
        scripts: files of assets/, in order; the last one starts the page.

    Returns:
        The HTML, the same for the same input.
    """
    style = "\n".join(_read_asset(name) for name in styles)
    script = "(() => {\n'use strict';\n" + "\n".join(_read_asset(name) for name in scripts) + "\n})();"
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=words.format_number,
        percent=words.format_percent,
        asked=words.format_promise,
        duration=words.format_duration,
        moment=words.format_moment,
        plural=words.plural,
        printable=printable,
        card=render_card,
        advise_left_out=sentences.advise_left_out,
    )
    environment.globals["picture_reasons"] = PICTURES
    return environment.get_template(template).render(
        **facts,
        page_style=Markup(style),  # noqa: S704 - our own files
        page_script=Markup(script),  # noqa: S704 - our own files
        page_data={name: escape_json(value) for name, value in data.items()},
        page_policy=_make_policy(style, script),
    )


def _read_asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text("utf-8")


def _make_policy(style: str, script: str) -> str:
    """Return a content security policy under which only this very style and script run, and nothing is loaded."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)
    ]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def write_page(path: Path, html: str) -> None:
    """Write a page atomically: a reader sees the old one or the new one.

    Raises:
        FolderError: the folder cannot be written; the message says why.
    """
    content = html.encode("utf-8", "replace")  # run.json may hold half a surrogate pair
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise FolderError(
            f"{path} cannot be written ({error}): free space, or correct the folder's permissions."
        ) from error
