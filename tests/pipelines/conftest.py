"""Every test of the pipelines has a home of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _isolated(own_home: Path) -> None:
    """Nothing is read from, or left in, the user's own KINTSUGI_HOME."""
