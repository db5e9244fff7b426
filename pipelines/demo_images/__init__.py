"""A few real images that ship with the software, so that it can be tried at once."""

from pathlib import Path

MAGNETIC_TILE = Path(__file__).parent / "magnetic_tile"
PHOTOGRAPHS = Path(__file__).parent / "photographs"
