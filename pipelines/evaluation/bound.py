"""The bound on held-out images, as the literature reports it: with many samples, in nats for each image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.evaluation.evaluated_images import EvaluatedImages
from pipelines.images import Decoded, find_images
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import ModelFile
from pipelines.training.weights import load_network
from vaecore.bound import bound_maps, iwae
from vaecore.graphs.scoring import ScoringGraph
from vaecore.priors import Autoencoder

MOST_VALUES = 8_000_000  # of y under all samples of one call: memory


@torch.inference_mode()
def evaluate_bound(folder: Path, file: ModelFile, samples: int) -> dict[str, Any]:
    """Mean bounds over the images of a folder. Needs torch, and the weights beside the model.

    Where y is black or white, a shade of grey is drawn once, keyed by the file, as training draws it at each step.

    Args:
        folder: Images, in sub-folders or not.
        file: A model that scores.
        samples: Of the latent, for the importance-weighted bound.

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
        raise ModelError(f"{file.ref} is an autoencoder: it has no prior, so its likelihood has no bound to measure")
    tested = EvaluatedImages(file, folder, files)
    images = decode_for(files, graph.image_format)
    each = np.array(tested.measure(images, lambda image: _measure(graph, image, samples), what="bound"))
    counts, dims = tested.finish(), graph.representation.dims
    means = dict(zip(("elbo", "rate", "distortion", "iwae"), each.mean(axis=0).tolist(), strict=True))
    return {
        **counts,
        **means,
        "iwae_error": float(each[:, 3].std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None,
        "bits_per_dim": -means["iwae"] / (dims * math.log(2)),
        "samples": samples,
        "dims": dims,
    }


def _measure(graph: ScoringGraph, image: Decoded, samples: int) -> tuple[float, float, float, float]:
    """Return ELBO, rate, distortion and the importance-weighted bound of an image, in nats."""
    generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))  # the same file, the same figures
    pixels = torch.from_numpy(np.ascontiguousarray(image.pixels[None]))
    extracted = graph.representation.extract(graph.image_format.to_unit(pixels))
    y = graph.representation.sample_y(extracted, generator)
    most = max(1, MOST_VALUES // y.numel())
    bounds, logs = [], []
    for start in range(0, samples, most):
        count = min(most, samples - start)
        noise = torch.randn((1, count, *graph.network.latent_shape), generator=generator)
        maps = bound_maps(graph.network, y, noise)
        total = maps.total()
        bounds.append(count * torch.stack([total.value, total.rate, total.distortion]))
        logs.append(iwae(graph.network, y, noise, maps=maps) + math.log(count))
    means: Tensor = torch.stack(bounds).sum(dim=0)[:, 0] / samples
    bound = torch.logsumexp(torch.stack(logs), dim=0)[0] - math.log(samples)
    value, rate, distortion = means.tolist()
    return value, rate, distortion, float(bound)
