"""Models in closed form: a linear VAE and further experts, each good image scored by a fold that has not seen it.

folds -> fit each on the others -> maps of its images -> statistics, weights and scores -> fit once more on all
-> score the images in reserve by each fold, to compare the folds with the final model
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.anomaly.figures_of_merit import separation
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.data.examples import Examples
from pipelines.data.extractor import Extractor, find_extractor
from pipelines.data.plan import Plan
from pipelines.data.splits import is_crossed
from pipelines.data.synthetic_defects import decode_with_defects, synthesize
from pipelines.data.training_images import TrainingData
from pipelines.models.session import keyed_generator
from pipelines.training.folds import BATCH, Fitted, Shown, choose_latents, fit_by_folds, make_folds, parts_of
from pipelines.training.whole_images import score_whole_images
from vaecore.bound import Elbo, attribution
from vaecore.experts import (
    EXPERTS,
    SINGLE_PLACES,
    WHOLE_PLACES,
    ClosedFormLinearVAE,
    Combination,
)
from vaecore.graphs.scoring import ScoreKind, ScoringGraph
from vaecore.representations import Features, View
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)
FITTED_IMAGES = 2_000  # more make the fit slow, and hardly better
DAMAGED_IMAGES, DEFECTS_PER_IMAGE = 48, 3
TOLD_RATE = 0.05  # false-alarm rate at which the log gives the cost of normal changes


@dataclass(frozen=True, slots=True, eq=False)
class ByFold:
    """Which fold scored each image, and what every fold makes of the same images, which none was fitted to."""

    fold_of: NDArray[np.int64]  # (N,)
    reserve: NDArray[np.float64]  # (K, R), scores


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What good images score when nothing was fitted to them, in the order of `indices`."""

    indices: tuple[int, ...]
    scores: tuple[float, ...]
    elbo: Elbo
    maps: Tensor | Sequence[Tensor]  # (N, h, w), or N times (h, w): anomaly maps on their own grid
    folds: int
    summaries: NDArray[np.float32] | None  # (N, D), what each image shows on average; None of windows
    by_fold: ByFold | None = None  # None of windows
    unchanged: tuple[float, ...] = ()  # scores of the images without the normal changes, where there are some


@dataclass(frozen=True, slots=True, eq=False)
class ClosedForm:
    """A model in closed form, and how good images that it has not seen score."""

    model: ClosedFormLinearVAE
    experts: Sequence[nn.Module]
    combination: Combination
    held_out: HeldOut
    weights: dict[str, float]  # of each in the score, the VAE's first
    synthetic: dict[str, float]  # AUROC of each on synthetic defects

    def in_graph(self, image_format: ImageFormat, features: Features, kind: ScoreKind) -> ScoringGraph:
        """The model as it is exported; without its experts where the score is of the bound alone."""
        combined = kind == "places"
        return ScoringGraph(
            self.model, image_format, features, kind=kind, experts=self.experts if combined else (),
            combination=self.combination if combined else None,
        ).eval()  # fmt: skip

    @torch.inference_mode()
    def embed(self, examples: Examples, indices: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """What the exported file gives as embedding of some images, by their index, from features that are there."""
        found: dict[int, NDArray[np.float32]] = {}
        for part in parts_of(np.sort(np.array(indices))):
            means = self.model.posterior(examples.batch(part)).mean.mean(dim=(2, 3))
            found |= dict(zip(part.tolist(), means.numpy(), strict=True))
        return found

    def figures(self) -> dict[str, float]:
        """What was measured on the way, by name."""
        weights = {f"weight_{name}": value for name, value in self.weights.items()}
        return weights | {f"synthetic_auroc_{name}": value for name, value in self.synthetic.items()}


def fitted_by_folds(
    data: TrainingData, seed: int, changes: Sequence[str] = ()
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Choose the images, or windows, that a model in closed form is fitted to, and their positions in each fold."""
    fitted = np.array(evenly_spaced(data.rows_of("train"), FITTED_IMAGES // (2 if changes else 1)))
    return fitted, make_folds(fitted, data, seed)


def train_closed_form(
    examples: Examples,
    data: TrainingData,
    plan: Plan,
    features: Features,
    kind: ScoreKind,
    *,
    seed: int = 0,
    calibrate: Sequence[int] = (),
    changes: Sequence[str] = (),
) -> ClosedForm:
    """Fit a linear VAE and the plan's experts, and score every good image by a fold that has not seen it.

    Every expert is invariant to the scale of a channel, so that the channels' statistics over all images, which the
    features hold, tell a fold nothing of the images that it has not seen.

    The examples of a model of windows are windows. All of an image are in one fold; what is held out are whole images.

    Args:
        examples: Features of the folder's images; the train split is fitted to.
        data: The images; damaged copies of some decide how much each expert weighs.
        plan: Names the experts, and the format of the images.
        features: What makes features.
        kind: What the score is made of: "places", or "elbo", of the VAE alone.
        seed: Of the folds.
        calibrate: Indices of the images that a model of windows scores as a whole by folds; of others, all are.
        changes: Normal changes of images. The examples then have a changed copy of each image, which is fitted to as
            well, beside it in its fold; what is held out are the changed copies.
    """
    fitted, folds = fitted_by_folds(data, seed, changes)
    images, latents = len(fitted), choose_latents(folds, features.dims)
    damaged = _damaged_copies(fitted, data, plan, features)
    if changes:
        fitted = np.concatenate([fitted, fitted + len(data.shown)])
        folds = [np.concatenate([fold, fold + images]) for fold in folds]
    names = ["linear_vae", *(plan.experts or ())]
    views = [features.view, *(EXPERTS[name].view for name in names[1:])]
    areas = [WHOLE_PLACES, *(EXPERTS[name].areas for name in names[1:])]
    if plan.overlap is not None:  # at full resolution a small defect is a single place
        areas = [SINGLE_PLACES] * len(names)
    found: list[Fitted] = []
    reserve = np.array(data.split["select"] if is_crossed(data.split) and plan.overlap is None else (), dtype=np.int64)
    summaries = [_summarise(examples, rows, features) for rows in (fitted, reserve)]
    with torch.inference_mode():
        copied = torch.cat([features.summarise(part.float()) for part in damaged.extracted.split(BATCH)])
    with progress(log, "fit", len(names) * (len(folds) + 1), "folds") as advance:
        for name, view in zip(names, views, strict=True):
            good, kept = (_look(examples, rows, features, view) for rows in (fitted, reserve))
            bad = _look_at(damaged.extracted, features, view)
            views_of = Shown(good, bad, kept, damaged.source)
            found.append(fit_by_folds(name, features, views_of, folds, latents, advance, keep=bool(calibrate)))
            del good, bad, kept, views_of
    own, copies = [each.own for each in found], [each.copies for each in found]
    seen = _Seen(own, summaries[0], copies, copied, damaged.source, areas)
    scores, combinations, in_reserve, fold_of = torch.zeros(len(fitted)), [], [], np.zeros(len(fitted), dtype=np.int64)
    for number, fold in enumerate(folds):  # statistics and weights are set anew without those of the fold
        others = np.setdiff1d(np.arange(len(fitted)), fold)
        combinations.append(_combine(seen, others)[0])
        fold_of[fold] = number
        scores[fold] = combinations[-1]([maps[fold] for maps in own], summaries[0][fold])[1]
        in_reserve.append(combinations[-1]([each.reserve[number] for each in found], summaries[1])[1])
    combination, separations = _combine(seen, np.arange(len(fitted)))
    weights = dict(zip(names, combination.weights.tolist(), strict=True))
    synthetic = dict(zip(names, separations, strict=True))
    told = ", ".join(f"{name} {synthetic[name]:.3f} ({weights[name]:.0%})".replace("%", " %") for name in names)
    log.info("AUROC on synthetic defects, and weight in the score: %s", told)
    vae, *experts = [each.model for each in found]
    elbo, maps = found[0].elbo, combination(own, summaries[0])[0]
    if kind == "elbo":
        scores, maps = -elbo.value / features.dims, attribution(own[0], elbo.rate[:, None, None])
        in_reserve = list(-found[0].reserve_elbo / features.dims)
    kept_out = slice(len(fitted) - images, None)  # the changed copies, where there are some
    if changes and kind == "places":
        _tell_cost(scores, combination, seen, images)
    held = HeldOut(
        tuple(fitted[:images].tolist()), tuple(scores[kept_out].tolist()), Elbo(*(each[kept_out] for each in elbo)),
        maps[kept_out], len(folds), summaries[0][kept_out].numpy(),
        ByFold(fold_of[kept_out], torch.stack(in_reserve).double().numpy()),
        tuple(scores[:images].tolist()) if changes else (),
    )  # fmt: skip
    made = ClosedForm(cast("ClosedFormLinearVAE", vae), experts, combination, held, weights, synthetic)
    if plan.overlap is None or not calibrate:
        return made
    graph_of: dict[int, ScoringGraph] = {}
    for number, fold in enumerate(folds):
        vae, *experts = [each.folds[number] for each in found]
        of_fold = replace(
            made, model=cast("ClosedFormLinearVAE", vae), experts=experts, combination=combinations[number]
        )
        graph = of_fold.in_graph(plan.image_format, features, kind)
        graph_of |= dict.fromkeys(data.image_of[fitted[fold]].tolist(), graph)
    return replace(made, held_out=_hold_out(calibrate, graph_of, examples, data, plan.overlap, len(folds)))


def _tell_cost(scores: Tensor, combination: Combination, seen: _Seen, images: int) -> None:
    """Say what thresholds that reckon with normal changes cost, on synthetic defects."""
    damaged = combination(seen.copies, seen.copied)[1]
    unchanged, changed = (
        float((damaged > torch.quantile(of_good, 1 - TOLD_RATE)).float().mean())
        for of_good in (scores[:images], scores[images:])
    )
    log.info(
        "normal changes: %.0f %% of synthetic defects are found at %.0f %% false alarms; by the threshold of unchanged "
        "images, %.0f %%",
        100 * changed, 100 * TOLD_RATE, 100 * unchanged,
    )  # fmt: skip


def _hold_out(
    calibrate: Sequence[int],
    graph_of: dict[int, ScoringGraph],
    examples: Examples,
    data: TrainingData,
    overlap: int,
    folds: int,
) -> HeldOut:
    """Score whole images under a model of windows, each by the fold that has not seen it."""
    whole = score_whole_images([i for i in calibrate if i in graph_of], graph_of, examples, data, overlap, log)
    score, rate, distortion = (
        torch.tensor([float(found[name]) for found in whole.values()]) for name in ("score", "rate", "distortion")
    )
    maps = [torch.from_numpy(found["anomaly_map"]) for found in whole.values()]
    return HeldOut(tuple(whole), tuple(score.tolist()), Elbo(distortion, rate), maps, folds, None)


@torch.inference_mode()
def _look(examples: Examples, indices: NDArray[np.int64], features: Features, view: View) -> Tensor:
    """A view of some images, in half precision."""
    channels, size = features.shape_of(view)
    found = torch.empty(len(indices), channels, *size, dtype=torch.float16)
    for part in parts_of(np.arange(len(indices))):
        found[part] = features.look(examples.extracted(indices[part]), view).half()
    return found


@torch.inference_mode()
def _summarise(examples: Examples, indices: NDArray[np.int64], features: Features) -> Tensor:
    """What some images show on average."""
    parts = [features.summarise(examples.extracted(indices[part])) for part in parts_of(np.arange(len(indices)))]
    return torch.cat(parts) if parts else torch.zeros(0, features.channels)


@torch.inference_mode()
def _look_at(extracted: Tensor, features: Features, view: View) -> Tensor:
    return torch.cat([features.look(part.float(), view).half() for part in extracted.split(BATCH)])


@dataclass(frozen=True, slots=True, eq=False)
class _Damaged:
    extracted: Tensor  # (M, D, h, w), half precision
    source: NDArray[np.int64]  # position of each one's image among those that are fitted to


@torch.inference_mode()
def _damaged_copies(fitted: NDArray[np.int64], data: TrainingData, plan: Plan, features: Features) -> _Damaged:
    """Features of copies of some good images, or windows, with synthetic defects."""
    some = evenly_spaced(range(len(fitted)), DAMAGED_IMAGES)
    extractor = Extractor(find_extractor(features, plan.image_format))
    extracted, source = [], []
    with progress(log, "damage", len(some), "images" if data.windows is None else "windows") as advance:
        for position, copies in _damage(some, fitted, data, plan):
            advance()
            for pixels in copies:
                extracted.append(torch.from_numpy(extractor(pixels[None])[0]))
                source.append(position)
    return _Damaged(torch.stack(extracted), np.array(source))


def _damage(
    some: Sequence[int], fitted: NDArray[np.int64], data: TrainingData, plan: Plan
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Positions among those that are fitted to, and damaged copies of the image, or window, there."""
    if data.windows is not None:
        for position in some:
            row = fitted[position]
            generator = keyed_generator(hashlib.sha256(f"{data.sha256[data.owners[row]]} {row}".encode()).hexdigest())
            window = np.array(data.windows[row])
            yield position, [synthesize(window, generator).image for _ in range(DEFECTS_PER_IMAGE)]
        return
    files = [data.files[fitted[position]] for position in some]
    position_of = {data.files[fitted[position]].relative: position for position in some}
    for image, copies in decode_with_defects(files, plan.image_format, DEFECTS_PER_IMAGE):
        yield position_of[image.file.relative], copies


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What experts made of images that they had not seen."""

    own: Sequence[Tensor]  # of each expert, (N, h, w): maps of good images
    summaries: Tensor  # (N, D)
    copies: Sequence[Tensor]  # of each expert, (M, h, w): maps of damaged copies
    copied: Tensor  # (M, D), their summaries
    source: NDArray[np.int64]  # (M,), position of each copy's image
    areas: Sequence[Sequence[float]]


def _combine(seen: _Seen, rows: NDArray[np.int64]) -> tuple[Combination, list[float]]:
    """Statistics and weights from some good images and the damaged copies of them; each expert's AUROC."""
    sizes = [(maps.shape[1], maps.shape[2]) for maps in seen.own]
    combination = Combination(sizes, seen.areas, images=len(rows), dims=seen.summaries.shape[1]).eval()
    good, damaged = [maps[rows] for maps in seen.own], np.flatnonzero(np.isin(seen.source, rows))
    good_scores = combination.fit(good, seen.summaries[rows]).numpy()
    bad_scores = combination([maps[damaged] for maps in seen.copies], seen.copied[damaged])[2].numpy()
    separations = [separation(good_scores[:, i], bad_scores[:, i]) for i in range(len(sizes))]
    combination.weigh(separations, len(rows))
    return combination, separations
