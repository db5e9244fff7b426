"""Models in closed form: a linear VAE and further experts, each good image scored by a fold that has not seen it.

folds -> fit each on the others -> maps of its images -> statistics, weights and scores -> fit once more on all
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipelines.anomaly.figures_of_merit import separation
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.data.examples import Examples
from pipelines.data.extractor import Extractor, find_extractor
from pipelines.data.pieces import group_alike
from pipelines.data.plan import Plan
from pipelines.data.synthetic_defects import decode_with_defects
from pipelines.data.training_images import TrainingData
from pipelines.images.resaved import coarse
from vaecore.bound import Elbo, bound_maps
from vaecore.experts import EXPERTS, WHOLE_PLACES, Batches, ClosedFormLinearVAE, Combination, Expert, latents_for
from vaecore.graphs.scoring import ScoreKind, ScoringGraph
from vaecore.representations import Features, View
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)
FOLDS, FOLDS_OF_FEW, FEW = 5, 10, 100
BATCH = 32
FITTED_IMAGES = 2_000  # more make the fit slow, and hardly better
LARGEST_GROUP = 0.2  # share of the images
DAMAGED_IMAGES, DEFECTS_PER_IMAGE = 48, 3


@dataclass(slots=True)
class Parts:
    """A linear VAE and the experts beside it, fitted to some images, with the statistics of their features."""

    features: Features
    model: ClosedFormLinearVAE
    experts: list[Expert]

    @torch.no_grad()
    def fit(self, extracted: Batches) -> None:
        """Fit all to features of good images, gone through several times."""
        self.features.standardise(extracted())

        def looked(view: View) -> Batches:
            return lambda: (self.features.look(each, view) for each in extracted())

        self.model.fit(looked(self.features.view))
        for expert in self.experts:
            expert.fit(looked(expert.view))

    @torch.inference_mode()
    def maps(self, extracted: Tensor) -> tuple[list[Tensor], Elbo]:
        """The map of each, the VAE's distortion first, and the bound."""
        y = self.features.normalise(extracted)
        bound = bound_maps(self.model, y, torch.zeros(len(y), 1, *self.model.latent_shape))
        own = [expert(self.features.look(extracted, expert.view)) for expert in self.experts]
        return [self.features.sum_by_place(bound.distortion), *own], bound.total()


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What good images score when nothing was fitted to them, in the order of `indices`."""

    indices: tuple[int, ...]
    scores: tuple[float, ...]
    elbo: Elbo
    maps: Tensor  # (N, h, w), anomaly maps on the finest grid
    folds: int


@dataclass(frozen=True, slots=True, eq=False)
class ClosedForm:
    """A model in closed form, and how good images that it has not seen score."""

    model: ClosedFormLinearVAE
    experts: list[Expert]
    combination: Combination
    held_out: HeldOut
    weights: dict[str, float] = field(default_factory=dict)
    synthetic: dict[str, float] = field(default_factory=dict)  # AUROC of each on synthetic defects

    def in_graph(self, image_format: ImageFormat, features: Features, kind: ScoreKind) -> ScoringGraph:
        """The model as it is exported; without its experts where the score is of the bound alone."""
        combined = kind == "places"
        return ScoringGraph(
            self.model, image_format, features, kind=kind, experts=self.experts if combined else (),
            combination=self.combination if combined else None,
        ).eval()  # fmt: skip

    def figures(self) -> dict[str, float]:
        """What was measured on the way, by name."""
        weights = {f"weight_{name}": value for name, value in self.weights.items()}
        return weights | {f"synthetic_auroc_{name}": value for name, value in self.synthetic.items()}


@dataclass(slots=True)
class _Maps:
    """Maps of images by each expert, row by row."""

    each: list[Tensor]

    @classmethod
    def empty(cls, count: int, sizes: Sequence[tuple[int, int]]) -> _Maps:
        return cls([torch.zeros(count, *size) for size in sizes])

    def put(self, rows: Sequence[int] | np.ndarray, maps: Sequence[Tensor]) -> None:
        for mine, new in zip(self.each, maps, strict=True):
            mine[torch.as_tensor(np.asarray(rows))] = new

    def rows(self, chosen: np.ndarray) -> list[Tensor]:
        index = torch.as_tensor(chosen)
        return [mine[index] for mine in self.each]


def train_closed_form(
    examples: Examples, data: TrainingData, plan: Plan, features: Features, *, seed: int = 0
) -> ClosedForm:
    """Fit a linear VAE and the plan's experts, and score every good image by a fold that has not seen it.

    Args:
        examples: Features of the folder's images; the train split is fitted to.
        data: The images; damaged copies of some decide how much each expert weighs.
        plan: Names the experts, and the format of the images.
        features: What makes features; their statistics are those of all images in the end.
        seed: Of the folds.
    """
    fitted = np.array(evenly_spaced(examples.split["train"], FITTED_IMAGES))
    folds = _folds(fitted, data, seed)
    sizes, areas = _shapes(plan, features)
    own, damaged = _Maps.empty(len(fitted), sizes), _damaged_copies(fitted, data, plan, features)
    copies = _Maps.empty(len(damaged.source), sizes)
    rate, distortion = torch.zeros(len(fitted)), torch.zeros(len(fitted))
    with progress(log, "fit", len(folds) + 1, "folds") as advance:
        for fold in folds:
            others = np.setdiff1d(np.arange(len(fitted)), fold)
            parts = _new_parts(plan, features, len(others))
            parts.fit(partial(_batches, examples, fitted[others]))
            for rows in _pieces_of(fold):
                maps, bound = parts.maps(examples.extracted(fitted[rows]))
                own.put(rows, maps)
                rate[rows], distortion[rows] = bound.rate, bound.distortion
            mine = np.flatnonzero(np.isin(damaged.source, fold))
            for rows in _pieces_of(mine):
                copies.put(rows, parts.maps(damaged.extracted[torch.as_tensor(rows)].float())[0])
            advance()
        parts = _new_parts(plan, features, len(fitted))
        parts.fit(partial(_batches, examples, fitted))
        advance()
    scores = torch.zeros(len(fitted))
    for fold in folds:  # every step that sees good images is repeated without those of the fold
        others = np.setdiff1d(np.arange(len(fitted)), fold)
        combination = _combine(own, copies, damaged.source, others, sizes, areas)[0]
        scores[fold] = combination(own.rows(fold))[1]
    everything = np.arange(len(fitted))
    combination, separations = _combine(own, copies, damaged.source, everything, sizes, areas)
    names = ["linear_vae", *(plan.experts or ())]
    weights = dict(zip(names, combination.weights.tolist(), strict=True))
    synthetic = dict(zip(names, separations, strict=True))
    told = ", ".join(f"{name} {synthetic[name]:.3f} ({weights[name]:.0%})".replace("%", " %") for name in names)
    log.info("AUROC on synthetic defects, and weight in the score: %s", told)
    held = HeldOut(
        tuple(fitted.tolist()),
        tuple(scores.tolist()),
        Elbo(distortion, rate),
        combination(own.each)[0],
        len(folds),
    )
    return ClosedForm(parts.model, parts.experts, combination, held, weights, synthetic)


@dataclass(frozen=True, slots=True, eq=False)
class _Damaged:
    extracted: Tensor  # (M, D, h, w), half precision
    source: np.ndarray  # position of each one's image among those that are fitted to


@torch.inference_mode()
def _damaged_copies(fitted: np.ndarray, data: TrainingData, plan: Plan, features: Features) -> _Damaged:
    """Features of copies of some good images with synthetic defects."""
    some = evenly_spaced(range(len(fitted)), DAMAGED_IMAGES)
    files = [data.files[fitted[position]] for position in some]
    position_of = {data.files[fitted[position]].relative: position for position in some}
    extractor = Extractor(find_extractor(features, plan.image_format))
    extracted, source = [], []
    with progress(log, "damage", len(files), "images") as advance:
        for image, copies in decode_with_defects(files, plan.image_format, DEFECTS_PER_IMAGE):
            advance()
            for pixels in copies:
                extracted.append(torch.from_numpy(extractor(pixels[None])[0]))
                source.append(position_of[image.file.relative])
    return _Damaged(torch.stack(extracted), np.array(source))


def _combine(
    own: _Maps,
    copies: _Maps,
    source: np.ndarray,
    rows: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    areas: Sequence[Sequence[float]],
) -> tuple[Combination, list[float]]:
    """Statistics and weights from some good images and the damaged copies of them; each one's AUROC."""
    combination = Combination(sizes, areas)
    good = own.rows(rows)
    combination.fit(good)
    damaged = copies.rows(np.flatnonzero(np.isin(source, rows)))
    good_scores, bad_scores = combination(good)[2].numpy(), combination(damaged)[2].numpy()
    separations = [separation(good_scores[:, i], bad_scores[:, i]) for i in range(len(sizes))]
    combination.weigh(separations)
    return combination.eval(), separations


def _shapes(plan: Plan, features: Features) -> tuple[list[tuple[int, int]], list[tuple[float, ...]]]:
    """The grid of each map, the VAE's first, and the areas that it is pooled over."""
    kinds = [EXPERTS[name] for name in plan.experts or ()]
    own = tuple(features.sum_by_place(torch.zeros(1, features.channels, *features.size)).shape[1:])
    sizes = [(own[0], own[1]), *(features.shape_of(kind.view)[1] for kind in kinds)]
    return sizes, [WHOLE_PLACES, *(kind.areas for kind in kinds)]


def _new_parts(plan: Plan, features: Features, images: int) -> Parts:
    experts = []
    for name in plan.experts or ():
        channels, size = features.shape_of(EXPERTS[name].view)
        experts.append(EXPERTS[name](channels=channels, size=size))
    latents = latents_for(images, features.dims)
    model = ClosedFormLinearVAE(channels=features.channels, size=features.size, latents=latents)
    return Parts(features, model.eval(), experts)


def _batches(examples: Examples, indices: np.ndarray) -> Iterator[Tensor]:
    for rows in _pieces_of(indices):
        yield examples.extracted(rows)


def _pieces_of(rows: np.ndarray) -> Iterable[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // BATCH)) if len(rows) else ()


def _folds(fitted: np.ndarray, data: TrainingData, seed: int) -> list[np.ndarray]:
    """Positions of the images of each fold; images of one piece are in one."""
    keys = [data.pieces[i] for i in fitted] if data.pieces else _alike(fitted, data)
    order = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    count = min(FOLDS_OF_FEW if len(fitted) < FEW else FOLDS, len(order))
    fold_of = {key: number % count for number, key in enumerate(order)}
    numbers = np.array([fold_of[key] for key in keys])
    return [np.flatnonzero(numbers == number) for number in range(count)]


def _alike(fitted: np.ndarray, data: TrainingData) -> list[str]:
    """A name for each image; those that look nearly the same share one, so that no fold knows another's images."""
    numbers = group_alike(np.array([coarse(data.pixels[i]) for i in fitted]))
    counts = np.bincount(numbers)
    if counts.max() > LARGEST_GROUP * len(fitted):  # a chain through the whole set: it tells nothing
        log.info("%d of %d images look nearly alike: each is taken for a piece of its own", counts.max(), len(fitted))
        return [data.sha256[i] for i in fitted]
    if (several := int(counts[counts > 1].sum())) >= 2:
        log.info("%d images look nearly like another one: such images stay together in the folds", several)
    first = {number: data.sha256[i] for number, i in zip(numbers[::-1], fitted[::-1], strict=True)}
    return [first[number] for number in numbers]
