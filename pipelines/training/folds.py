"""Folds: every good image is seen by experts that were fitted without it."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.training_images import TrainingData
from vaecore.bound import Elbo, bound_maps
from vaecore.experts import EXPERTS, ClosedFormLinearVAE, Expert, add, latents_for
from vaecore.representations import Features

FOLDS, FOLDS_OF_FEW, FEW = 5, 10, 100
BATCH = 32


def make_folds(fitted: NDArray[np.int64], data: TrainingData, seed: int) -> list[NDArray[np.int64]]:
    """Positions of the images, or windows, of each fold; images of one piece are in one, and so are one's windows."""
    keys = [data.pieces[i] if data.pieces else data.sha256[i] for i in data.image_of[fitted].tolist()]
    order = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    images, fold_of = Counter(keys), dict[str, int]()
    sizes = [0] * min(FOLDS_OF_FEW if len(fitted) < FEW else FOLDS, len(order))
    for key in order:  # the smallest fold gets the next piece, so that none is left with few images to be fitted to
        fold_of[key] = sizes.index(min(sizes))
        sizes[fold_of[key]] += images[key]
    numbers = np.array([fold_of[key] for key in keys])
    return [np.flatnonzero(numbers == number) for number in range(len(sizes))]


def choose_latents(folds: Sequence[NDArray[np.int64]], dims: int) -> int:
    """Latents of the linear VAE, of every fold's as of the final one: with more, good images would score lower.

    Args:
        folds: Images of each; a large one leaves few images to be fitted to.
        dims: Of y.

    >>> (
    ...     choose_latents(np.split(np.arange(600), 5), 70_000),
    ...     choose_latents(np.split(np.arange(70), 10), 70_000),
    ... )
    (128, 47)
    >>> choose_latents([np.arange(40), np.arange(30), np.arange(30)], 70_000)
    45
    """
    images = sum(map(len, folds))
    return latents_for(min(images - len(fold) for fold in folds), dims)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What one expert sees of images, in half precision."""

    good: Tensor  # (N, C, h, w), images that are fitted to
    bad: Tensor  # (M, C, h, w), damaged copies of some of them
    reserve: Tensor  # (R, C, h, w), images that nothing is fitted to
    source: NDArray[np.int64]  # (M,), position among the good images of each copy's image


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """One expert fitted to all images, and what folds that had not seen them made of images and damaged copies."""

    model: nn.Module
    own: Tensor  # (N, h, w)
    copies: Tensor  # (M, h, w)
    elbo: Elbo  # of the images; zeros where the expert is no VAE
    reserve: Tensor  # (K, R, h, w), what each fold's made of images in reserve
    reserve_elbo: Tensor  # (K, R)
    folds: Sequence[nn.Module] = ()  # of each, where they are kept


def fit_by_folds(
    name: str,
    features: Features,
    shown: Shown,
    folds: Sequence[NDArray[np.int64]],
    latents: int,
    advance: Callable[[], None],
    *,
    keep: bool = False,
) -> Fitted:
    """Fit an expert to all folds but one, for each, and to all.

    Args:
        name: Of the expert.
        features: Whose view it sees.
        shown: Images in that view.
        folds: Positions of the images of each.
        latents: Of the linear VAE.
        advance: Called after each fit.
        keep: Keep every fold's.
    """
    kept: list[nn.Module] = []
    good, bad, source = shown.good, shown.bad, shown.source
    everything, in_reserve = np.arange(len(good)), list[tuple[Tensor, Tensor]]()
    model = _unfitted(name, features, latents)
    sums_of = [add(model.gather(y) for y in _batches(good, fold)) for fold in folds]
    total = add(sums_of)
    own, copies, bound = torch.zeros(0), torch.zeros(0), torch.zeros(2, len(good))
    for fold, sums in zip(folds, sums_of, strict=True):
        others = partial(_batches, good, np.setdiff1d(everything, fold))
        model.fit_to(tuple(all_of - its for all_of, its in zip(total, sums, strict=True)), others)
        for values, rows, is_good in ((good, fold, True), (bad, np.flatnonzero(np.isin(source, fold)), False)):
            for part in parts_of(rows):
                maps, elbo = _maps(model, features, values[part].float())
                if own.numel() == 0:
                    own, copies = (torch.zeros(len(each), *maps.shape[1:]) for each in (good, bad))
                (own if is_good else copies)[part] = maps
                if is_good and elbo is not None:
                    bound[:, part] = torch.stack(elbo)
        in_reserve.append(_maps_of(model, features, shown.reserve))
        kept += [copy.deepcopy(model)] if keep else []
        advance()
    model.fit_to(total, partial(_batches, good, everything))
    advance()
    reserve, reserve_elbo = (torch.stack(each) for each in zip(*in_reserve, strict=True))
    return Fitted(model, own, copies, Elbo(*bound), reserve, reserve_elbo, kept)


def _unfitted(name: str, features: Features, latents: int) -> ClosedFormLinearVAE | Expert:
    """Make room for an expert."""
    if name in EXPERTS:
        channels, size = features.shape_of(EXPERTS[name].view)
        return EXPERTS[name](channels=channels, size=size).eval()
    return ClosedFormLinearVAE(channels=features.channels, size=features.size, latents=latents).eval()


def _batches(values: Tensor, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    return (values[part].float() for part in parts_of(rows))


def parts_of(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """A batch of them at a time."""
    return np.array_split(rows, -(-len(rows) // BATCH)) if len(rows) else []


@torch.inference_mode()
def _maps(model: nn.Module, features: Features, y: Tensor) -> tuple[Tensor, Elbo | None]:
    """The map of each image, and the bound where the expert is the VAE."""
    if not isinstance(model, ClosedFormLinearVAE):
        return model(y), None
    bound = bound_maps(model, y, torch.zeros(len(y), 1, *model.latent_shape))
    return features.sum_by_place(bound.distortion), bound.total()


def _maps_of(model: nn.Module, features: Features, values: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of images, and their ELBO; zeros where the expert is no VAE."""
    maps, bounds = [], []
    for part in values.split(BATCH):
        places, elbo = _maps(model, features, part.float())
        maps.append(places)
        bounds.append(torch.zeros(len(part)) if elbo is None else elbo.value)
    return torch.cat(maps), torch.cat(bounds)
