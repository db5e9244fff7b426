"""The bound on held-out images, as the literature reports it: with many samples, in nats for each image."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.base.files import keep_figures
from pipelines.base.progress import progress
from pipelines.data.test_images import Tested
from pipelines.errors import DataError, ModelError
from pipelines.images import Decoded, Failed, find_images
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import ModelFile
from pipelines.training.weights import load_network
from vaecore.bound import bound_maps, iwae
from vaecore.priors import Autoencoder
from vaecore.scoring import ScoringGraph

log = logging.getLogger(__name__)
MOST_VALUES = 8_000_000  # of y under all samples of one call: memory


@torch.inference_mode()
def evaluate_bound(folder: Path, file: ModelFile, samples: int, *, json_path: Path | None = None) -> dict[str, Any]:
    """Mean bounds over the images of a folder. Needs torch, and the weights beside the model.

    Where y is black or white, a shade of grey is drawn once, keyed by the file, as training draws it at each step.

    Args:
        folder: Images, in sub-folders or not.
        file: A model that scores.
        samples: Of the latent, for the importance-weighted bound.
        json_path: Where to write the figures.

    Returns:
        `elbo`, `rate`, `distortion` and `iwae`, means in nats for each image, `iwae_error`, the standard error of the
        last (None of one image); `bits_per_dim` of it; `samples`, `dims`, and counts of images.

    Raises:
        FolderError: There are no images.
        DataError: None can be read.
        ModelError: There are no weights beside the model, or it is an autoencoder.
    """
    graph, files = load_network(file), find_images(folder)
    if isinstance(graph.model, Autoencoder):
        raise ModelError(f"{file.ref} is an autoencoder: without a prior there is no likelihood to bound")
    tested, found = Tested(file), []
    with progress(log, "bound", len(files), "images") as advance:
        for image in decode_for(files, graph.image_format):
            if isinstance(image, Failed):
                tested.leave_out(image.file, image.reason)
            else:
                tested.add(image)
                found.append(_of(graph, image, samples))
            advance()
    if not found:
        raise DataError(f"none of {len(files)} images under {folder} can be read")
    each, dims = np.array(found), graph.representation.dims
    means = dict(zip(("elbo", "rate", "distortion", "iwae"), each.mean(axis=0).tolist(), strict=True))
    figures = {
        **tested.finish(folder),
        **means,
        "iwae_error": float(each[:, 3].std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None,
        "bits_per_dim": -means["iwae"] / (dims * math.log(2)),
        "samples": samples,
        "dims": dims,
    }
    keep_figures(json_path, figures, describe_bound)
    return figures


def describe_bound(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a terminal."""
    error = figures["iwae_error"]
    sure = "of one image: no standard error" if error is None else f"standard error {error:.2f}"
    yield (
        f"log-likelihood of {figures['n_images']} images, at least: {figures['iwae']:.2f} nats an image "
        f"({figures['samples']} samples; {sure}), "
        f"{figures['bits_per_dim']:.4f} bits for each of {figures['dims']} dimensions"
    )
    yield f"ELBO {figures['elbo']:.2f}: rate {figures['rate']:.2f}, distortion {figures['distortion']:.2f}"


def _of(graph: ScoringGraph, image: Decoded, samples: int) -> tuple[float, float, float, float]:
    """ELBO, rate, distortion and the importance-weighted bound of an image, in nats."""
    generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))  # the same file, the same figures
    pixels = torch.from_numpy(np.ascontiguousarray(image.pixels[None]))
    extracted = graph.representation.extract(graph.image_format.to_unit(pixels))
    y, weight = graph.representation.drawn(extracted, generator), graph.representation.weight
    most = max(1, MOST_VALUES // y.numel())
    bounds, logs = [], []
    for start in range(0, samples, most):
        count = min(most, samples - start)
        noise = torch.randn((1, count, *graph.network.latent_shape), generator=generator)
        maps = bound_maps(graph.network, y, noise, weight=weight)
        total = maps.total()
        bounds.append(count * torch.stack([total.value, total.rate, total.distortion]))
        logs.append(iwae(graph.network, y, noise, weight=weight, maps=maps) + math.log(count))
    means: Tensor = torch.stack(bounds).sum(dim=0)[:, 0] / samples
    bound = torch.logsumexp(torch.stack(logs), dim=0)[0] - math.log(samples)
    value, rate, distortion = means.tolist()
    return value, rate, distortion, float(bound)
