"""Put a trained bundle among the models that ship: `scripts/ship.py denoise BUNDLE benchmark.md`.

The weights go into half precision: files half as large, and values apart by less than rounding to 8 bits. The card gets
the figures of the benchmark, a text that starts with "## Benchmark". Write the job file by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.models.reference import BUILTIN
from vaecore.graphs.export import halve_weights

FOLDER = re.compile(r"under `[^`]+`")  # of the machine that it was trained on


def main(arguments: Sequence[str] | None = None) -> None:
    """Write model and card."""
    parser = argparse.ArgumentParser(description="Put a trained bundle among the models that ship.")
    parser.add_argument("name", help="that it ships under, such as denoise")
    parser.add_argument("bundle", type=Path, help="folder that scripts/gpu.py train wrote")
    parser.add_argument("benchmark", type=Path, help="Markdown text with figures, for the end of the card")
    given = parser.parse_args(arguments)
    folder = BUILTIN / given.name
    folder.mkdir(exist_ok=True)
    proto = onnx.load(given.bundle / "model.onnx")
    halve_weights(proto)
    (folder / "model.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    card = FOLDER.sub("under `photographs`", (given.bundle / "card.md").read_text(encoding="utf-8"), count=1)
    figures = given.benchmark.read_text(encoding="utf-8")
    (folder / "card.md").write_text(f"{card.rstrip()}\n\n{figures.strip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
