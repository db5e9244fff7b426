"""Our side of anomalib's rows: it is given our images, size and weights, and gives back scores and maps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipelines.bench.anomalib_environment import find_anomalib
from pipelines.bench.baselines import backbone_of
from pipelines.bench.measure import (
    BATCH,
    Figures,
    Material,
    at_full_size,
    calibrate,
    read_images,
    read_material,
)
from pipelines.bench.question import Question
from pipelines.errors import DataError
from pipelines.images import ImageFile, find_images
from pipelines.training.network import training_device
from vaecore.representations.backbones import Backbone

MANY = 20_000  # places: from here on the coreset is 1 %, as the papers' larger sets have it
NEIGHBOURS = 9  # b of PatchCore's re-weighting
PADIM_CHANNELS = 100  # R_d of the paper's smaller network

RUNNER = Path(__file__).with_name("anomalib_runner.py")
SAME_FEATURES = 1e-3
"""Largest difference of a feature between anomalib's extractor and ours, as a share of the largest feature."""
COMPARED = 2  # images whose features are compared


def measure_anomalib(question: Question) -> dict[str, Any]:
    """Train and score in anomalib's environment.

    Raises:
        DataError: Its features are not ours: the row would compare backbones, not methods.
    """
    material, device = read_material(question.job), training_device()
    backbone = backbone_of(question.job, material.plan, question.method.strides)
    for leftover in question.work.glob("exchange-*"):  # of a process that was killed here
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix="exchange-", dir=question.work) as temporary:
        folder = Path(temporary)
        _write_model(folder, backbone, material)
        names, sizes, reading = _write_images(folder / "test.npy", find_images(question.test / "test"), material)
        held_out = material.data.files_of("calibrate")
        written = _write_images(folder / "calibrate.npy", held_out, material)[0]
        if len(written) < len(held_out):  # each fold's images are named by their place among all
            raise DataError(f"{len(held_out) - len(written)} training images can no longer be read: run it again")
        height, width = material.plan.size
        places = len(material.data.split["train"]) * height * width // min(backbone.strides) ** 2
        share, channels = 0.01 if places > MANY else 0.1, min(PADIM_CHANNELS, sum(backbone.channels))
        request = {
            "rule": question.method.rule,
            "backbone": _architecture(backbone),
            "layers": _layers(backbone),
            "maximum": material.plan.image_format.maximum,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
            "coreset_share": share,
            "neighbours": NEIGHBOURS,
            "channels": channels,
            "seed": question.seed,
            "device": device,
            "folds": _folds(material),
            "train_batch": 8 if device == "cpu" else 128,
            "test_batch": BATCH[device],
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _run(find_anomalib(question.anomalib_home), folder)
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        if not answer["features_differ"] <= SAME_FEATURES:
            msg = (
                f"anomalib's features differ from ours by {answer['features_differ']:.2g} of the largest "
                f"(limit {SAME_FEATURES:g}): the row would compare backbones, not methods"
            )
            raise DataError(msg)
        figures = Figures(question.test)
        scores, maps = np.load(folder / "scores.npy"), np.load(folder / "maps.npy", mmap_mode="r")
        drawing = 0.0
        for name, size, score, each in zip(names, sizes, scores, maps, strict=True):
            start = time.perf_counter()
            whole = at_full_size(torch.from_numpy(np.array(each)), size)
            drawing += time.perf_counter() - start
            figures.add(name, float(score), whole)
        calibration: list[float] = np.load(folder / "calibration.npy").tolist()
    note = f"coreset {share:.0%} of {places} places" if question.method.rule == "patchcore" else f"{channels} channels"
    return {
        "figures": figures.result(calibrate(material, calibration)),
        "scores": figures.scores,
        "calibration": calibration,
        "images_per_second": len(names) / (reading + answer["score_seconds"] + drawing),
        "train_seconds": answer["train_seconds"],
        "peak_mib": answer["peak_mib"],
        **material.facts,
        "device": device,
        "features_differ": answer["features_differ"],
        "note": note,
    }


def _folds(material: Material) -> list[list[list[int]]]:
    """Of each fold, the places in the train split that are fitted to, and those that are scored."""
    place_of = {index: place for place, index in enumerate(material.data.split["train"])}
    return [[[place_of[index] for index in part] for part in fold] for fold in material.folds()]


def _run(interpreter: Path, folder: Path) -> None:
    """Run the script there. What it says in the end is the reason if it fails."""
    # -P: no module beside the script may stand for one of the environment's.
    arguments = [str(interpreter), "-P", "-W", "ignore", str(RUNNER), str(folder)]
    # All that is needed is given: nothing is to be downloaded. A progress bar becomes a line every ten seconds.
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_MININTERVAL": "10"}
    done = subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False, env=variables)  # noqa: S603 - our own script
    code = done.returncode
    if code < 0:
        msg = f"anomalib's process was ended by {signal.Signals(-code).name}, perhaps because memory ran out"
        raise DataError(msg)
    if code:
        raise SystemExit(code)


def _write_model(folder: Path, backbone: Backbone, material: Material) -> None:
    """The backbone's weights, and what it gives for some images, to be compared."""
    save_file({name: value.contiguous() for name, value in backbone.network.state_dict().items()}, folder / "weights")
    train = material.data.split["train"]
    pixels = material.data.pixels[np.array(train)]
    np.save(folder / "train.npy", pixels)
    unit = material.plan.image_format.to_unit(torch.from_numpy(pixels[:COMPARED]))
    with torch.inference_mode():
        maps = backbone(unit.expand(-1, 3, -1, -1))
    np.savez(folder / "features.npz", **{f"map{index}": each.numpy() for index, each in enumerate(maps)})


def _write_images(
    path: Path, files: Sequence[ImageFile], material: Material
) -> tuple[list[str], list[tuple[int, int]], float]:
    """Write images at the working size; return their names, their sizes, and how long reading them took."""
    height, width = material.plan.size
    shape = (len(files), material.plan.image_format.channels, height, width)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    start = time.perf_counter()
    for image in read_images(files, material):
        array[len(names)] = image.unit[0].numpy()
        names.append(image.relative)
        sizes.append(image.size)
    array.flush()
    seconds = time.perf_counter() - start
    if len(names) < len(files):  # the rest could not be read
        np.save(path, np.array(array[: len(names)]))
    return names, sizes, seconds


def _architecture(backbone: Backbone) -> str:
    """What timm calls it, which is not always what the job calls it."""
    facts: Any = backbone.network.pretrained_cfg
    return str(facts["architecture"])


def _layers(backbone: Backbone) -> list[str]:
    """The layers whose maps are taken, as anomalib names them."""
    facts: Any = backbone.network.feature_info
    return [str(name) for name in facts.module_name()]
