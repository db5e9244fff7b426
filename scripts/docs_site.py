"""What mkdocs cannot know of this repository: pages outside of docs/, links into the sources, equations as MathML.

mkdocs calls these functions while `make docs` builds the site. The documents themselves stay as GitHub shows them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
}
LANGUAGES = {".py": "python", ".toml": "toml", ".md": "markdown", ".yaml": "yaml", ".yml": "yaml"}
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
INDEX = "<!-- index: the site lists the files here -->"
EQUATION = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/, and a page for each source file that a page links."""
    from mkdocs.structure.files import File

    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for source in sorted(set(_linked_sources())):
        files.append(File.generated(config, _page_of(source), content=_as_page(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Return a page whose links lead to pages of the site and whose equations are MathML."""
    address = page.file.src_uri
    if address.startswith("source/"):
        return markdown
    folder = _document_of(address).parent

    def lead(match: re.Match[str]) -> str:
        target = _page_of((folder / match[1]).resolve())
        return f"]({posixpath.relpath(target, posixpath.dirname(address) or '.')}{match[2] or ''})"

    if address == "decisions/README.md":
        markdown = markdown.replace(INDEX, "\n".join(index_of_decisions()))
    return outside_of_code(markdown, lambda text: EQUATION.sub(_mathml, LINK.sub(lead, text)))


def index_of_decisions(folder: Path = DOCS / "decisions") -> list[str]:
    """Return the table of all decisions. It is in no file: two people who add decisions change no common line."""
    lines = ["| | decision | |", "|---|---|---|"]
    for path in sorted(folder.glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        number, title = text.partition("\n")[0].removeprefix("# ").split(". ", 1)
        later = re.search(r"^Superseded by \[decision\s(\d+)\]", text, re.MULTILINE)
        lines.append(f"| {number} | [{title}]({path.name}) | {f'superseded by {later[1]}' if later else ''} |")
    return lines


def outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Return a text in which all but the code blocks is changed."""
    done, start = [], 0
    for fence in FENCE.finditer(markdown):
        done += [change(markdown[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*done, change(markdown[start:])])


def _mathml(match: re.Match[str]) -> str:
    return f'<div class="math">{convert(match[1], display="block")}</div>'


def _document_of(address: str) -> Path:
    """Return the file of the repository that a page is made of."""
    return next((ROOT / name for name, page in OUTSIDE.items() if page == address), DOCS / address)


def _page_of(path: Path) -> str:
    """Return the address of the page that shows a file of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in OUTSIDE:
        return OUTSIDE[name]
    return path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else f"source/{name}.md"


def _linked_sources() -> Iterator[Path]:
    for document in [*(ROOT / name for name in OUTSIDE), *DOCS.rglob("*.md")]:
        text = FENCE.sub("", document.read_text(encoding="utf-8"))
        for match in LINK.finditer(text):
            path = (document.parent / match[1]).resolve()
            if path.is_file() and _page_of(path).startswith("source/"):
                yield path


def _as_page(source: Path) -> str:
    language = LANGUAGES.get(source.suffix, "text")
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {source.relative_to(ROOT).as_posix()}\n"
    return f"{head}\n`````{language}\n{source.read_text(encoding='utf-8')}`````\n"
