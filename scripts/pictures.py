#!/usr/bin/env python3
"""Draw the pictures of docs/lectures.md again: `make pictures`.

Data come with scikit-learn and scikit-image, or are drawn here. Where a folder of MNIST digits as PNG files is named,
with a sub-folder for each digit, the pictures that are about such digits are made of them, as those in the repository
are; that takes half an hour longer on one core:

    make pictures ARGS="--mnist mnist/train"        # or in the variable KINTSUGI_DOCS_MNIST
    make pictures ARGS="kl gan"                     # these alone
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lectures
import torch
from lectures.style import Setting

ROOT = Path(__file__).resolve().parent.parent
HELPERS = {"style", "training", "digits", "shapes", "information"}
log = logging.getLogger("docs")


def names() -> list[str]:
    """Modules that draw."""
    return [module.name for module in pkgutil.iter_modules(lectures.__path__) if module.name not in HELPERS]


def main() -> None:
    """Read the command line, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "lectures")
    parser.add_argument("--mnist", type=Path, default=os.environ.get("KINTSUGI_DOCS_MNIST") or None)
    parser.add_argument("--work", type=Path, help="keep what is trained here (default: nowhere)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(names()):
        sys.exit(f"there is no picture {', '.join(sorted(unknown))}: there are {', '.join(names())}")
    if args.mnist is not None and not args.mnist.is_dir():
        sys.exit(f"the folder of digits {args.mnist} is not there: name one, or leave it out")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)  # sums in another order would be other pictures
    with tempfile.TemporaryDirectory(prefix="kintsugi-docs-") as temporary:
        work = args.work or Path(temporary)
        os.environ["KINTSUGI_HOME"] = str(work.resolve() / "home")
        setting = Setting(args.out.resolve(), work.resolve(), args.mnist and args.mnist.resolve())
        for name in args.names or names():
            start = time.perf_counter()
            torch.manual_seed(0)
            importlib.import_module(f"lectures.{name}").draw(setting)
            log.info("%s: %.0f s", name, time.perf_counter() - start)


if __name__ == "__main__":
    main()
