"""Check that the version of pyproject.toml may be released: `make release TAG=v0.2.0`.

The tag names the version, the changelog has a dated section of it, CITATION.cff and docker-compose.yml agree, and the
addresses of the project are real.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESERVED = re.compile(r"(^|\.)(example|invalid|test)(\.(com|net|org))?$")  # RFC 2606: nobody can have these


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is missing, or end well."""
    parser = argparse.ArgumentParser(description="Check that the version may be released.")
    parser.add_argument("tag", nargs="?", help="of the commit, such as v0.2.0")
    tag = parser.parse_args(arguments).tag
    if faults := list(find_faults(ROOT, tag)):
        sys.exit("\n".join(["Not to be released:", *(f"- {fault}" for fault in faults)]))


def find_faults(root: Path, tag: str | None) -> Iterator[str]:
    """Yield a sentence for everything that a release needs and that is missing.

    Args:
        root: Of the repository.
        tag: Of the commit; None where none was given.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    if tag is not None and tag != f"v{version}":
        yield f"the tag is {tag} and the version of pyproject.toml is {version}: tag v{version}, or set the version"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", changelog, re.MULTILINE)
    if section is None:
        yield f"CHANGELOG.md has no line '## [{version}] - DATE': name the changes since the last release under it"
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    if citation["version"] != version:
        yield f"CITATION.cff states version {citation['version']} and pyproject.toml {version}: set it to {version}"
    if section is not None and str(citation["date-released"]) != section[1]:
        yield f"CITATION.cff states {citation['date-released']} and CHANGELOG.md {section[1]}: set one date"
    if f"image: kintsugi:{version}" not in (root / "docker-compose.yml").read_text(encoding="utf-8"):
        yield f"docker-compose.yml names no image kintsugi:{version}: set it"
    for name, address in project["urls"].items():
        if RESERVED.search(urlsplit(address).hostname or ""):
            yield f"the address of '{name}' is {address}, where nothing can be: set the real one in pyproject.toml"


if __name__ == "__main__":
    main()
