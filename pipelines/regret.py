"""Likelihood regret of image files under a model: slow, and asked for; it trains a posterior for every image."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from pipelines.build import training_device
from pipelines.images import Failed, ImageFile
from pipelines.inputs import decode_for
from pipelines.modelfile import ModelFile
from pipelines.progress import progress
from pipelines.session import Session, keyed_noise
from pipelines.weights import load_network
from vaecore.regret import STEPS, likelihood_regret

log = logging.getLogger(__name__)


def regret_of(model: ModelFile, files: Sequence[ImageFile], *, steps: int = STEPS) -> dict[str, float]:
    """Likelihood regret of each file that can be read, in nats per dimension of y, by its relative path.

    Raises:
        ModelError: The model's weights are not beside it.
    """
    device, metadata = training_device(), Session(model, device="cpu").metadata
    graph = load_network(model).to(device)
    shape = (metadata.samples, *metadata.latent_shape)
    found: dict[str, float] = {}
    with progress(log, "likelihood regret", len(files), "images") as advance:
        for image in decode_for(files, metadata):
            advance()
            if isinstance(image, Failed):
                continue
            with torch.no_grad():
                y = graph.to_y(torch.from_numpy(np.ascontiguousarray(image.pixels[None])).to(device))
            noise = torch.from_numpy(keyed_noise(image.sha256, shape)[None]).to(device)
            regret = likelihood_regret(graph.network, y, noise, weight=graph.representation.weight, steps=steps)
            found[image.file.relative] = float(regret[0]) / graph.representation.dims
    return found
