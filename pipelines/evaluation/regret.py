"""Likelihood regret of image files under a model: slow, and asked for; it fits a posterior to every image."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipelines.base.files import write_json
from pipelines.base.progress import progress
from pipelines.images import Failed, ImageFile
from pipelines.models.inputs import decode_for
from pipelines.training.network import training_device
from vaecore.bound.regret import STEPS, likelihood_regret
from vaecore.graphs.scoring import ScoringGraph

log = logging.getLogger(__name__)
REGRET_FILE = "regret.json"


def measure_regret(
    graph: ScoringGraph,
    files: Mapping[str, ImageFile],
    *,
    steps: int = STEPS,
    kept: Path | None = None,
    model_sha256: str = "",
) -> dict[str, float]:
    """Measure the likelihood regret of each readable image, in nats per dimension of y, by the sha256 of its content.

    Args:
        graph: The network, from `pipelines.training.weights.load_network`.
        files: Images, by the sha256 of their contents.
        steps: Of the fit to each.
        kept: File that every regret is written to when it is found: a run that was stopped goes on from it.
        model_sha256: Of the model file, whose regrets alone count.
    """
    device = training_device()
    graph = graph.to(device)
    made_by = {"model_sha256": model_sha256, "steps": steps}
    known = _read(kept, made_by) if kept else {}
    found = {digest: known[digest] for digest in files if digest in known}
    left = [file for digest, file in files.items() if digest not in found]
    log.info(
        "likelihood regret of %d images, %d of them known from before: %d steps of a fit for each of the others, which "
        "takes seconds; an estimate follows",
        len(files), len(found), steps,
    )  # fmt: skip
    with progress(log, "likelihood regret", len(files), "images", len(found)) as advance:
        for image in decode_for(left, graph.image_format):
            if not isinstance(image, Failed):
                with torch.no_grad():
                    y = graph.to_y(torch.from_numpy(np.ascontiguousarray(image.pixels[None])).to(device))
                generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))  # the same file, the same regret
                regret = likelihood_regret(graph.network, y, generator, steps=steps)
                found[image.sha256] = float(regret[0]) / graph.representation.dims
                if kept:
                    write_json(kept, made_by | {"regrets": known | found})
            advance()
    return found


def _read(path: Path, made_by: Mapping[str, object]) -> dict[str, float]:
    """The regrets of an earlier run, where it was one of the same model and fit."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return dict(document["regrets"]) if made_by.items() <= document.items() else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
