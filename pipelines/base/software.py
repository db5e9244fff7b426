"""This software's own name and version, as the installed package states them."""

from __future__ import annotations

from importlib.metadata import version

DISTRIBUTION = "kintsugi-images"  # in a package index, where `kintsugi` is another project


def software_version() -> str:
    """Return the version of Kintsugi that is installed."""
    return version(DISTRIBUTION)
