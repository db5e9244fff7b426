"""Likelihood regret of image files under a model: slow, and asked for; it fits a posterior to every image."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from pipelines.build import training_device
from pipelines.images import Failed, ImageFile
from pipelines.inputs import decode_for
from pipelines.progress import progress
from vaecore.regret import STEPS, likelihood_regret
from vaecore.scoring import ScoringGraph

log = logging.getLogger(__name__)


def regret_of(graph: ScoringGraph, files: Sequence[ImageFile], *, steps: int = STEPS) -> dict[str, float]:
    """Likelihood regret of each file that can be read, in nats per dimension of y, by its relative path.

    Args:
        graph: The network, from `pipelines.weights.load_network`.
        files: Images.
        steps: Of the fit to each.
    """
    device = training_device()
    graph = graph.to(device)
    found: dict[str, float] = {}
    with progress(log, "likelihood regret", len(files), "images") as advance:
        for image in decode_for(files, graph.image_format):
            advance()
            if isinstance(image, Failed):
                continue
            with torch.no_grad():
                y = graph.to_y(torch.from_numpy(np.ascontiguousarray(image.pixels[None])).to(device))
            generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))  # the same file, the same regret
            regret = likelihood_regret(graph.network, y, generator, weight=graph.representation.weight, steps=steps)
            found[image.file.relative] = float(regret[0]) / graph.representation.dims
    return found
