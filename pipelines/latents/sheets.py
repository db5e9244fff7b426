"""Pictures that a model makes of latents, as sheets: samples, a map of two, one that is moved, what lies between."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.images.drawing import to_8_bits
from vaecore.bound import DiagonalGaussian, GenerativeModel
from vaecore.graphs.scoring import ScoringGraph
from vaecore.networks import ClassPrior, TwoLevelVAE
from vaecore.priors import Autoencoder
from vaecore.representations.image_format import resize

LONGEST = 1200  # pixels of a sheet's longer side
GAP = 2  # pixels between the images of a sheet, clear
REACH = 3.0  # prior standard deviations, to either side
_BATCH = 64
_PRIOR_SAMPLES = 20_000  # that tell where a prior is which is no Gaussian

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A PNG file of images in rows and columns."""

    png: bytes
    width: int
    height: int


@torch.inference_mode()
def decode(graph: ScoringGraph, z: Tensor, side: int) -> Tensor:
    """Mean images of latents (N, Z, h, w), in [0, 1], (N, C, H, W), the longer side at most `side` pixels."""
    size = _within(side, graph.representation.size)
    return torch.cat([resize(graph.network.decode(part).mean, size) for part in z.split(_BATCH)])


def _within(side: int, size: tuple[int, int]) -> tuple[int, int]:
    """A size of the same shape, the longer side at most so long."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def make_sheet(graph: ScoringGraph, images: Tensor, across: int, *, gap: int = GAP) -> Sheet:
    """Arrange images in [0, 1], (N, C, H, W), in rows of `across`; 16 bits are stretched as in reports."""
    pixels = graph.image_format.from_unit(images.cpu()).numpy()
    count, height, width, channels = pixels.shape
    down = -(-count // across)
    stacked = to_8_bits(pixels.reshape(count * height, width, channels)).reshape(pixels.shape)
    sheet = np.zeros((down * (height + gap) - gap, across * (width + gap) - gap, channels + 1), np.uint8)
    for number, image in enumerate(stacked):
        top, left = number // across * (height + gap), number % across * (width + gap)
        sheet[top : top + height, left : left + width, :channels] = image
        sheet[top : top + height, left : left + width, channels] = 255
    if not gap and count == down * across:
        sheet = sheet[..., :channels]
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(buffer, "PNG", optimize=True)
    return Sheet(buffer.getvalue(), sheet.shape[1], sheet.shape[0])


def fit_side(across: int, down: int = 1) -> int:
    """Return the longest side that an image may have if a sheet holds so many."""
    return max(8, LONGEST // max(across, down) - GAP)


def draw_samples(graph: ScoringGraph, count: int, across: int, classes: int = 0, seed: int = 0) -> Sheet:
    """Draw means of p(y | z) with z from p(z); if there are classes, a row for each of the first `classes`."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(graph.model, ClassPrior):
        drawn = graph.model.sample_class(torch.arange(classes).repeat_interleave(across), generator)
    else:
        drawn = cast("GenerativeModel", graph.model).sample_prior(count, generator)
    return make_sheet(graph, decode(graph, drawn, fit_side(across)), across)


def standard_quantiles(places: int) -> NDArray[np.float64]:
    """Return values of a standard normal latent that are as likely as each other: the inverse CDF, evenly.

    >>> standard_quantiles(3).round(3).tolist()
    [-0.967, 0.0, 0.967]
    """
    from scipy.special import ndtri

    values: NDArray[np.float64] = ndtri((np.arange(places) + 0.5) / places)
    return values


def choose_axes(
    graph: ScoringGraph, means: NDArray[np.float64] | None, places: int
) -> list[NDArray[np.float64]] | None:
    """Return the values that a map shows of each of two latents: quantiles of the prior, or of the images."""
    share = (np.arange(places) + 0.5) / places
    if isinstance(graph.model, Autoencoder):
        return None if means is None else [np.quantile(means[:, axis], share) for axis in (0, 1)]
    prior = graph.network.prior(torch.zeros(1, 1, *graph.network.latent_shape))
    if isinstance(prior, DiagonalGaussian):
        return [standard_quantiles(places)] * 2
    drawn = cast("GenerativeModel", graph.model).sample_prior(_PRIOR_SAMPLES, torch.Generator().manual_seed(0))
    return [np.quantile(drawn[:, axis, 0, 0].numpy(), share) for axis in (0, 1)]


def draw_map(graph: ScoringGraph, axes: Sequence[NDArray[np.float64]]) -> Sheet:
    """Draw all combinations of two latents: the first to the right, the second upwards."""
    first, second = (torch.from_numpy(axis).float() for axis in axes)
    z = torch.stack([first.repeat(len(second)), second.flip(0).repeat_interleave(len(first))], dim=1)[..., None, None]
    return make_sheet(graph, decode(graph, z, fit_side(len(first)) + GAP), len(first), gap=0)


@torch.inference_mode()
def find_prior(graph: ScoringGraph, base: Tensor, means: Tensor | None) -> DiagonalGaussian | None:
    """Return middle and width of each latent, (1, Z, h, w): of the prior, given upper latents, or of the images."""
    if isinstance(graph.model, Autoencoder):
        return None if means is None else _moments(means)
    prior = graph.network.prior(base[:, None])
    if isinstance(prior, DiagonalGaussian):
        return DiagonalGaussian(prior.mean[:, 0], prior.log_scale[:, 0])
    drawn = cast("GenerativeModel", graph.model).sample_prior(_PRIOR_SAMPLES, torch.Generator().manual_seed(0))
    return _moments(drawn)


def _moments(z: Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(z.mean(dim=0, keepdim=True), z.std(dim=0, correction=0, keepdim=True).clamp(1e-6).log())


@torch.inference_mode()
def traverse(
    graph: ScoringGraph, base: Tensor, prior: DiagonalGaussian, latents: Sequence[int], columns: int
) -> Tensor:
    """Move one latent at a time from -3 to 3 prior standard deviations, all others as in `base`, (1, Z, h, w).

    What is moved on the upper of two levels shows in the lower one: that is then what the prior expects under it.

    Args:
        graph: The model.
        base: Where the others stay.
        prior: Of `find_prior`.
        latents: Which, by their place among all Z h w.
        columns: Steps.

    Returns:
        Latents (rows x columns, Z, h, w).
    """
    steps = torch.linspace(-REACH, REACH, columns)
    middle, scale, shape = prior.mean.flatten(), prior.log_scale.exp().flatten(), base.shape[1:]
    rows = []
    for latent in latents:
        row = base.flatten(1).repeat(columns, 1)
        row[:, latent] = middle[latent] + steps * scale[latent]
        z = row.unflatten(1, shape)
        if isinstance(graph.model, TwoLevelVAE) and latent // (shape[1] * shape[2]) >= graph.model.lower_channels:
            z = graph.model.from_above(z[:, None], torch.zeros_like(z[:, None]))[:, 0]
        rows.append(z)
    return torch.cat(rows)


def choose_latents(graph: ScoringGraph, base: Tensor, prior: DiagonalGaussian, count: int) -> list[int]:
    """Choose the latents whose move changes the picture most: there are no images that would show which are used."""
    every = list(range(base[0].numel()))
    pictures = decode(graph, traverse(graph, base, prior, every, 2), 32).unflatten(0, (-1, 2))
    change = (pictures[:, 1] - pictures[:, 0]).abs().flatten(1).mean(dim=1)
    return [int(latent) for latent in change.argsort(descending=True, stable=True)[:count]]


def interpolate(means: Tensor, pairs: Sequence[tuple[int, int]], columns: int) -> Tensor:
    """Return latents on the straight lines between posterior means, (pairs x columns, Z, h, w)."""
    share = torch.linspace(0, 1, columns)[:, None, None, None]
    return torch.cat([(1 - share) * means[first] + share * means[second] for first, second in pairs])


@torch.inference_mode()
def show_input(graph: ScoringGraph, pixels: Tensor, side: int) -> Tensor:
    """Return an image as the model is given it, (1, C, H, W) in [0, 1]: at its size, shades of grey as they are."""
    y, representation = graph.image_format.to_unit(pixels), graph.representation
    if representation.drawable:
        y = representation.extract(y)
        y = representation.normalise(y) if representation.standardises else y
    return resize(y, _within(side, representation.input_size))


def make_sprite(thumbnails: Sequence[Pixels], across: int) -> bytes:
    """Put thumbnails (S, S, 3) into one JPEG file, in rows of `across`."""
    side = thumbnails[0].shape[0]
    sheet = np.full((-(-len(thumbnails) // across) * side, across * side, 3), 255, np.uint8)
    for number, image in enumerate(thumbnails):
        top, left = number // across * side, number % across * side
        sheet[top : top + side, left : left + side] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()


def make_thumbnail(image: NDArray[Any], side: int) -> Pixels:
    """Place an image (H, W, C) in the middle of a square of `side` pixels, in colour."""
    picture = Image.fromarray(np.broadcast_to(to_8_bits(image), (*image.shape[:2], 3)).copy())
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - picture.height) // 2, (side - picture.width) // 2
    square[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    return square
