"""Runs in anomalib's environment: its own prediction over a folder, timed.

    python -P anomalib_predict.py REQUEST.json ANSWER.json

Weights are random, and so is what the models have learned: the arithmetic is the same.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from anomalib.data import PredictDataset  # type: ignore[import-not-found]  # its environment
from anomalib.engine import Engine  # type: ignore[import-not-found]  # the same
from anomalib.models import EfficientAd, Padim, Patchcore, Stfpm  # type: ignore[import-not-found]  # the same
from torch.utils.data import DataLoader

KINDS = {"patchcore": Patchcore, "padim": Padim, "stfpm": Stfpm, "efficientad": EfficientAd}


def build(request: dict[str, Any], images: DataLoader[Any]) -> Any:  # noqa: ANN401 - a model of anomalib
    """A model with its guides' settings; what it would have learned is made up."""
    torch.manual_seed(0)
    kind = KINDS[request["rule"]]
    # EfficientAd fetches its weights when it is fitted, the others through timm when they are made.
    make = timm.create_model
    timm.create_model = lambda *names, **options: make(*names, **(options | {"pretrained": False}))
    model = kind(visualizer=request["draw"])
    inner = model.model.eval()
    if kind not in (Patchcore, Padim):
        return model
    first = model.pre_processor(next(iter(images)).image[:1])
    with torch.no_grad():
        maps = inner.feature_extractor(first)
    places = max(each.shape[-1] * each.shape[-2] for each in maps.values())
    if kind is Patchcore:
        channels = sum(each.shape[1] for each in maps.values())
        inner.memory_bank = torch.randn(places * request["train_images"] // 10, channels)
    else:
        inner.gaussian.mean = torch.randn(len(inner.idx), places)
        inner.gaussian.inv_covariance = torch.eye(len(inner.idx)).expand(places, -1, -1).contiguous()
    return model


def main(request_path: Path, answer_path: Path) -> None:
    """Predict, and take the time."""
    request = json.loads(request_path.read_text(encoding="utf-8"))
    dataset = PredictDataset(path=request["images"])

    def loader(batch: int, workers: int) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=dataset.collate_fn)

    model = build(request, loader(1, 0))
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)
        engine = Engine(default_root_dir=root, accelerator=request["device"], devices=1, logger=False)
        start = time.perf_counter()
        if request["batch"] is None:  # as its guides have it
            engine.predict(model=model, data_path=request["images"])
        else:
            engine.predict(model=model, dataloaders=loader(request["batch"], request["workers"]))
        seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
    answer = {"images": len(dataset), "seconds": seconds, "peak_mib": peak}
    answer_path.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
