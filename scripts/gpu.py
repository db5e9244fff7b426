#!/usr/bin/env python3
r"""Train image-to-image jobs into bundles, and measure models, on a GPU that is at hand for a short while.

Needs neither registry nor scheduler nor command line; of the project's requirements, those of training and of the
model file (see pyproject.toml), and the project itself: `pip install --no-deps --editable .`. A training that is cut
off goes on where it was when the same command is given again; a bundle that is there is left as it is.

    scripts/gpu.py train pipelines/builtin/denoise/job.toml --set model.network='"M"' --set train.minutes=15 \
        --images /data/photos --work /tmp/work --out bundles
    scripts/gpu.py measure builtin:denoise bundles/denoise --json gpu.json
    scripts/gpu.py measure bundles/tiles --images /data/tiles  # of a model that scores: do GPU and CPU agree?
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from pipelines.base.subsample import evenly_spaced
from pipelines.bench.restoration import count_operations
from pipelines.errors import KintsugiError
from pipelines.image_to_image.train import make_bundle, prepare
from pipelines.images import Decoded, find_images
from pipelines.jobfile.job import load_job
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import Metadata, ModelFile
from pipelines.models.providers import SCORE_TOLERANCE, SMALLEST_SCORE
from pipelines.models.reference import find_model_file
from pipelines.models.session import RestoringSession, Session, kind_of
from pipelines.train import crop_training

Device = Literal["cpu", "cuda"]
REPEATS = 5
MOST_IMAGES = 64  # that scores are compared of
log = logging.getLogger("gpu")


class Lines:
    """Notes of a training, as lines of a log and files beside the model."""

    def __init__(self, folder: Path) -> None:
        """Keep files in a folder."""
        self._folder = folder

    def params(self, values: Mapping[str, Any]) -> None:
        """What was chosen."""
        log.info("%s", json.dumps(dict(values), default=str))

    def metrics(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Figures at a step."""
        log.info("step %d: %s", step, json.dumps(dict(figures)))

    def text(self, name: str, text: str) -> None:
        """A file of the bundle."""
        (self._folder / name).write_text(text, encoding="utf-8")


def train(args: argparse.Namespace) -> None:
    """One bundle for each job."""
    overrides = [*args.set, *([f'data.train="{args.images.resolve()}"'] if args.images else [])]
    for path in args.jobs:
        job = load_job(path, overrides)
        folder, training = args.out / job.name, crop_training(job)
        if folder.exists():
            log.info("%s is there already", folder)
            continue
        prepared = prepare(training)
        work, part = args.work / job.name / prepared.key, folder.with_name(f"{folder.name}.part")
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)  # of a start that was cut off
        made = make_bundle(training, prepared, work, part, Lines(part))
        (part / "figures.json").write_text(json.dumps(made.figures, indent=1), encoding="utf-8")
        part.rename(folder)
        log.info("%s: %s", folder, json.dumps(made.figures))


def measure(args: argparse.Namespace) -> None:
    """Rates against the machine's measured peak, and how far its results are from the CPU's."""
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    found["peak"] = peaks(device)
    log.info("%s", json.dumps(found))
    for ref in args.models:
        file = find_model_file(ref)
        if file is None:
            sys.exit(f"{ref} is no model file; give a path, or builtin:NAME")
        if kind_of(file) is not Metadata:
            found[ref] = measure_model(file, device, args.side, args.batch)
        elif args.images:
            found[ref] = measure_scores(file, device, args.images)
        else:
            sys.exit(f"{ref} gives scores, which are measured on images: add --images FOLDER")
        log.info("%s: %s", ref, json.dumps(found[ref]))
        if args.json:
            args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def peaks(device: str) -> dict[str, float]:
    """Operations and bytes in a second that large matrix products and copies reach."""
    side = 8192 if device == "cuda" else 1024
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.randn(side, side, device=device, dtype=kind)
        found[f"{name}_tflops"] = 2 * side**3 / seconds(partial(torch.matmul, matrix, matrix), device) / 1e12
    data = torch.randint(0, 255, (2**28 if device == "cuda" else 2**24,), device=device, dtype=torch.uint8)
    found["copy_gb_per_s"] = 2 * data.numel() / seconds(data.clone, device) / 1e9
    return found


def measure_model(file: ModelFile, device: Device, side: int, batch: int) -> dict[str, Any]:
    """ONNX Runtime's rate from memory, in megapixels of the result, and the largest difference from the CPU."""
    here, cpu = RestoringSession(file, device=device), RestoringSession(file, device="cpu")
    metadata = here.metadata
    tile = np.random.default_rng(0).random((batch, side, side, metadata.channels), np.float32)
    time_taken = seconds(lambda: here.run(tile), "cpu")  # results are copied back, so the call waits for them
    restored, spread = here.run(tile[:1])
    expected, expected_spread = cpu.run(tile[:1])
    pixels = batch * (side * metadata.scale) ** 2
    return {
        "provider": here.provider,
        "megapixels_per_s": pixels / time_taken / 1e6,
        "tflops": 2 * count_operations(file) * pixels / time_taken / 1e12,
        "difference": float(np.abs(restored - expected).max()),
        "scale_difference": float(np.abs(spread - expected_spread).max()),
    }


def measure_scores(file: ModelFile, device: Device, folder: Path) -> dict[str, Any]:
    """ONNX Runtime's rate from memory, and whether scores and verdicts of some images are those of the CPU."""
    here, cpu = Session(file, device=device), Session(file, device="cpu")
    some = evenly_spaced(find_images(folder), MOST_IMAGES)
    images = [image for image in decode_for(some, here.metadata) if isinstance(image, Decoded)]
    if not images:
        sys.exit(f"none of {len(some)} images under {folder} can be read: give images that the model is for")
    found, expected, repeated = (
        np.array([float(session.run_images([image], ("score",))["score"][0]) for image in images])
        for session in (here, cpu, here)
    )
    relative = np.abs(found - expected) / np.maximum(np.abs(expected), SMALLEST_SCORE)
    calibration = file.calibration()
    threshold = calibration and calibration.threshold(calibration.default_false_alarms())
    return {
        "provider": here.provider,
        "images": len(images),
        "images_per_s": len(images)
        / seconds(lambda: [here.run_images([image], ("score",)) for image in images], "cpu"),
        "score_difference": float(relative.max()),
        "tolerance": SCORE_TOLERANCE,
        "beyond_tolerance": int((relative > SCORE_TOLERANCE).sum()),
        "not_repeated": int((found != repeated).sum()),
        "verdicts_that_differ": None
        if threshold is None
        else int(((found > threshold) != (expected > threshold)).sum()),
    }


def seconds(call: Callable[[], object], device: str) -> float:
    """Median of a few runs, after one that warms up."""
    taken = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("train")
    one.add_argument("jobs", nargs="+", type=Path)
    one.add_argument("--set", action="append", default=[], help="key=value that replaces a key of the job")
    one.add_argument("--images", type=Path, help="folder to train on, instead of the job's")
    one.add_argument("--work", type=Path, required=True, help="checkpoints")
    one.add_argument("--out", type=Path, required=True, help="bundles")
    one.set_defaults(do=train)
    two = verbs.add_parser("measure")
    two.add_argument("models", nargs="+")
    two.add_argument("--side", type=int, default=512)
    two.add_argument("--batch", type=int, default=4)
    two.add_argument("--json", type=Path)
    two.add_argument("--images", type=Path, help="folder of images, for models that score")
    two.set_defaults(do=measure)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parser.parse_args()
    try:
        args.do(args)
    except KintsugiError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
