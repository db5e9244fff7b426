"""Runs in anomalib's environment, where nothing of ours is: a folder of arrays in, scores and maps out.

    python -P anomalib_runner.py FOLDER

FOLDER holds request.json, weights (safetensors), features.npz, train.npy (N, H, W, C), and test.npy and
calibrate.npy (N, C, H, W): with folds the same images as train.npy, each scored by a model that has not seen it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import (  # type: ignore[import-not-found]  # its environment
    PadimModel,
)
from anomalib.models.image.patchcore.torch_model import (  # type: ignore[import-not-found]  # the same
    PatchcoreModel,
)
from safetensors.torch import load_file


def build(request: dict[str, Any], folder: Path) -> Any:  # noqa: ANN401 - a model of anomalib
    """anomalib's model of the rule that is asked for, with our weights in its feature extractor."""
    common = {"backbone": request["backbone"], "layers": request["layers"], "pre_trained": False}
    if request["rule"] == "patchcore":
        model = PatchcoreModel(**common, num_neighbors=request["neighbours"])
    else:
        model = PadimModel(**common, n_features=request["channels"])
    model.feature_extractor.feature_extractor.load_state_dict(load_file(folder / "weights"))
    return model


def main(folder: Path) -> None:
    """Train and score."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    device = request["device"]
    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"])  # noqa: NPY002 - what its random projection draws from
    model = build(request, folder).to(device)
    mean, std = (torch.tensor(request[name], device=device)[:, None, None] for name in ("mean", "std"))
    train, test, calibrate = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("train", "test", "calibrate"))

    def to_input(image: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = (image.to(device).expand(-1, 3, -1, -1) - mean) / std
        return scaled

    def to_unit(pixels: Any) -> torch.Tensor:  # noqa: ANN401 - an array
        unit: torch.Tensor = torch.from_numpy(np.array(pixels)).float().permute(0, 3, 1, 2) / request["maximum"]
        return unit

    differ = compare(model, np.load(folder / "features.npz"), lambda count: to_input(to_unit(train[:count])))

    def fit(model: Any, rows: Any) -> None:  # noqa: ANN401 - a model of anomalib, and places in train.npy
        model.train()
        with torch.no_grad():
            for first in range(0, len(rows), request["train_batch"]):
                model(to_input(to_unit(train[rows[first : first + request["train_batch"]]])))
            if request["rule"] == "patchcore":
                model.subsample_embedding(request["coreset_share"])
            else:
                model.fit()
        model.eval()

    start = time.perf_counter()
    fit(model, np.arange(len(train)))
    train_seconds = time.perf_counter() - start

    def score(model: Any, images: Any) -> tuple[Any, Any]:  # noqa: ANN401 - a model of anomalib, and arrays
        scores, maps = [], []
        with torch.no_grad():
            for first in range(0, len(images), request["test_batch"]):
                batch = model(to_input(torch.from_numpy(np.array(images[first : first + request["test_batch"]]))))
                scores.append(batch.pred_score.flatten().cpu().numpy())
                maps.append(batch.anomaly_map[:, 0].cpu().numpy())
        return np.concatenate(scores), np.concatenate(maps)

    start = time.perf_counter()
    scores, maps = score(model, test)
    score_seconds = time.perf_counter() - start

    np.save(folder / "scores.npy", scores)
    np.save(folder / "maps.npy", maps)
    peak = peak_memory()  # the folds are no part of the method
    calibration = [] if request["folds"] else [score(model, calibrate)[0]]
    for rest, fold in request["folds"]:
        del model
        torch.manual_seed(request["seed"])
        np.random.seed(request["seed"])  # noqa: NPY002 - as above
        model = build(request, folder).to(device)
        fit(model, np.array(rest))
        calibration.append(score(model, calibrate[fold])[0])
    np.save(folder / "calibration.npy", np.concatenate(calibration))
    answer = {
        "train_seconds": train_seconds,
        "score_seconds": score_seconds,
        "features_differ": differ,
        "peak_mib": peak,
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def compare(model: Any, ours: Any, inputs: Any) -> float:  # noqa: ANN401 - of anomalib, numpy and above
    """Largest difference of a feature from ours, as a share of the largest."""
    expected = [ours[name] for name in sorted(ours.files)]
    with torch.no_grad():
        found = list(model.feature_extractor(inputs(len(expected[0]))).values())
    return max(
        float(np.abs(mine - theirs.cpu().numpy()).max() / np.abs(mine).max())
        for mine, theirs in zip(expected, found, strict=True)
    )


def peak_memory() -> float:
    """The most memory that this process has held, in MiB (`pipelines.bench.measure` says why not getrusage)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
