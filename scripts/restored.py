"""Draw docs/guides/restored.jpg again, from the photographs of `make demo`: `scripts/restored.py demo-out`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from pipelines.demo_images import PHOTOGRAPHS

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, GAP = 384, 256, 6
SHOWN = {  # where the part of the photograph begins and how wide it is, in shares of its width
    "noisy/skyline.jpg": (0.40, 0.25, 0.25),
    "small/beach.png": (0.30, 0.20, 0.30),
    "grey/bay.jpg": (0.1, 0.0, 0.84),
}


def part(path: Path, left: float, top: float, width: float) -> Image.Image:
    """Cut out a part of a photograph, at the size that all have on the page."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    x, y, across = (image.width * share for share in (left, top, width))
    box = (x, y, x + across, y + across * HEIGHT / WIDTH)
    how = Image.Resampling.NEAREST if across < WIDTH else Image.Resampling.LANCZOS  # no smoothing of its own
    return image.resize((WIDTH, HEIGHT), how, box)


def main() -> None:
    """Put the photographs below each other, as they were on the left, restored on the right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that the demo wrote")
    restored = parser.parse_args().demo / "restored"
    page = Image.new("RGB", (2 * WIDTH + GAP, len(SHOWN) * (HEIGHT + GAP) - GAP), "white")
    for row, (name, where) in enumerate(SHOWN.items()):
        folder, file = name.split("/")
        for column, path in enumerate((PHOTOGRAPHS / name, restored / folder / "restored" / f"{file[:-4]}.png")):
            page.paste(part(path, *where), (column * (WIDTH + GAP), row * (HEIGHT + GAP)))
    page.save(ROOT / "docs" / "guides" / "restored.jpg", quality=90)


if __name__ == "__main__":
    main()
