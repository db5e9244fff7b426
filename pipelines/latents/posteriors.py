"""Where images lie among a model's latents: posteriors of a folder of images, and what these say of each latent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.anomaly.group_thresholds import group_of
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.errors import DataError
from pipelines.images import Decoded, Failed, ImageFile, LeftOut, list_images
from pipelines.latents.sheets import make_thumbnail
from pipelines.models.inputs import decode_for
from pipelines.models.session import keyed_noise
from vaecore.bound import DiagonalGaussian
from vaecore.graphs.scoring import ScoringGraph

log = logging.getLogger(__name__)
MOST_IMAGES = 2000  # more make the page large and t-SNE slow, and show nothing that these do not
ACTIVE = 0.01  # variance over images of a posterior mean, in Burda et al.
THUMBNAIL = 32  # pixels of a side
SAMPLES = 4  # of the latent, for each image's bound
_TSNE_FEWEST = 10
_TSNE_LATENTS = 50  # principal components that it begins with, where there are more latents

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """What the model makes of some images.

    Attributes:
        files: The images, in the order of their names.
        failed: Files that could not be read, and folders.
        found: Files in all, of which these were taken evenly.
        posterior: q(z | y) of each, (N, Z, h, w).
        elbo: Of each, in nats.
        kl: Rate of each latent, mean over the images, (Z, h, w), in nats.
        thumbnails: Of each, (S, S, 3).
        left_out: Files that are not read.
    """

    files: list[ImageFile]
    failed: list[tuple[str, str]]
    found: int
    posterior: DiagonalGaussian
    elbo: NDArray[np.float64]
    kl: NDArray[np.float64]
    thumbnails: list[NDArray[np.uint8]]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def labels(self) -> list[str]:
        """The sub-folder of each image; empty where it lies in none."""
        return [group_of(file.relative) for file in self.files]

    @property
    def means(self) -> NDArray[np.float64]:
        """Posterior means with all latents in a row, (N, Z h w)."""
        return self.posterior.mean.flatten(1).double().numpy()

    @property
    def variances(self) -> NDArray[np.float64]:
        """Of each latent's posterior mean over the images, (Z, h, w)."""
        return self.posterior.mean.double().var(dim=0, correction=0).numpy()

    @property
    def active(self) -> NDArray[np.bool_]:
        """Return whether each latent depends on the image, (Z, h, w).

        Source: Burda, Grosse, Salakhutdinov 2016, "Importance weighted autoencoders", section 5.
        """
        return self.variances > ACTIVE


@torch.inference_mode()
def encode_folder(graph: ScoringGraph, folder: Path) -> Codes:
    """Posteriors and bounds of the images under a folder, of at most `MOST_IMAGES`.

    Raises:
        FolderError: There are no images.
        DataError: None can be read.
    """
    listed = list_images(folder)
    listed.left_out.log()
    some = listed.files.take(np.array(evenly_spaced(range(len(listed.files)), MOST_IMAGES)))
    files, means, log_scales, elbos = list[ImageFile](), list[Tensor](), list[Tensor](), list[float]()
    failed = [(place.relative, place.reason) for place in listed.unreadable]
    thumbnails = list[NDArray[np.uint8]]()
    kl = torch.zeros(graph.network.latent_shape, dtype=torch.float64)
    with progress(log, "encode", len(some), "images") as advance:
        for image in decode_for(some, graph.image_format):
            if isinstance(image, Failed):
                failed.append((image.file.relative, image.reason))
            else:
                maps = graph.bound(graph.to_y(to_batch(image)), _draw_noise(graph, image))
                files.append(image.file)
                means.append(maps.posterior.mean)
                log_scales.append(maps.posterior.log_scale)
                elbos.append(float(maps.total().value))
                kl += maps.kl[0].double()
                thumbnails.append(make_thumbnail(image.pixels, THUMBNAIL))
            advance()
    if not files:
        raise DataError(f"none of {len(some)} images under {folder} can be read; the first: {failed[0][1]}")
    posterior = DiagonalGaussian(torch.cat(means), torch.cat(log_scales))
    total = len(listed.files) + len(listed.unreadable)
    rates = (kl / len(files)).numpy()
    return Codes(files, failed, total, posterior, np.array(elbos), rates, thumbnails, listed.left_out)


def to_batch(image: Decoded) -> Tensor:
    """Return a batch of one image."""
    return torch.from_numpy(np.ascontiguousarray(image.pixels[None]))


def _draw_noise(graph: ScoringGraph, image: Decoded) -> Tensor:
    return torch.from_numpy(keyed_noise(image.sha256, (SAMPLES, *graph.network.latent_shape))[None])


def project_to_plane(codes: Codes) -> tuple[Floats, str]:
    """Return two numbers for each image, and how they came about: "latents", "t-SNE" or "principal components".

    Source: van der Maaten and Hinton 2008, "Visualizing data using t-SNE".
    """
    means = codes.means
    if means.shape[1] == 2:
        return means, "latents"
    centred = means - means.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:_TSNE_LATENTS].T
    if len(means) < _TSNE_FEWEST or components.shape[1] < 2 or not components[:, 0].any():  # t-SNE crashes on one point
        return np.pad(components, ((0, 0), (0, 2)))[:, :2], "principal components"
    from sklearn.manifold import TSNE  # takes a second to import

    perplexity = min(30.0, (len(means) - 1) / 3)
    found: Floats = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    return found, "t-SNE"


def correlate(codes: Codes, latents: Sequence[int]) -> NDArray[np.float64]:
    """Return the correlations of the posterior means of some latents over the images."""
    centred = codes.means[:, list(latents)] - codes.means[:, list(latents)].mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    scaled = centred / np.where(spread > 0, spread, 1.0)
    found: NDArray[np.float64] = scaled.T @ scaled / len(scaled)
    return found


def choose_far_pairs(codes: Codes, count: int) -> list[tuple[int, int]]:
    """Choose pairs of images that are far apart: of the two farthest labels, each nearest to its middle, and so on.

    Without labels: the two images that are farthest apart, and so on. No label or image is in two pairs.
    """
    means, labels = codes.means, np.array(codes.labels)
    names = sorted(set(labels.tolist()))
    if len(names) > 1:
        middles = np.stack([means[labels == name].mean(axis=0) for name in names])
        typical = [
            int(np.flatnonzero(labels == name)[((means[labels == name] - middle) ** 2).sum(axis=1).argmin()])
            for name, middle in zip(names, middles, strict=True)
        ]
    else:
        middles, typical = means, list(range(len(means)))
    squares = (middles**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * middles @ middles.T
    np.fill_diagonal(apart, -np.inf)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count and len(typical) - 2 * len(pairs) >= 2:
        first, second = (int(i) for i in np.unravel_index(apart.argmax(), apart.shape))
        pairs.append((typical[min(first, second)], typical[max(first, second)]))
        apart[[first, second]] = apart[:, [first, second]] = -np.inf
    return pairs


def rank_by_elbo(codes: Codes, count: int) -> dict[str, list[int]]:
    """Return the best, the middle and the worst images by ELBO; each in one of them at most."""
    order = np.argsort(-codes.elbo, kind="stable")
    count = min(count, len(order) // 3)
    if not count:
        return {"best": order.tolist()}
    middle = (len(order) - count) // 2
    parts = {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
    return {name: part.tolist() for name, part in parts.items()}
