"""How places become a score, chosen on held-out good images and synthetic defects: never on labelled images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.anomaly.figures_of_merit import separation
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.data.examples import Examples
from pipelines.data.plan import Plan
from pipelines.data.synthetic_defects import decode_with_defects
from pipelines.data.training_images import TrainingData
from pipelines.errors import JobError
from pipelines.images import Decoded
from pipelines.jobfile.tables import ModelTable
from vaecore.bound import BoundMaps
from vaecore.graphs.scoring import ScoringGraph
from vaecore.representations.complexity import code_length
from vaecore.representations.pooling import POOLINGS, PlaceStatistics, Pooling, Typicality

log = logging.getLogger(__name__)
ALIGNED_FROM = 0.5
"""Share of y's variance that lies in its mean image: above, the images show one object in one place."""
STATISTICS_IMAGES = 512
FEWEST_ALIGNED = 50  # images; the spread at each place is noise below
SELECT_IMAGES = 64
DEFECTS_PER_IMAGE = 3
CLEARLY_BETTER = 0.04  # AUROC by which another pooling has to beat the usual one: synthetic defects are small ones
BATCH = 16
SHOWN = 3  # poolings whose figures are printed
NO_STATISTICS = (PlaceStatistics(), PlaceStatistics())  # of what is pooled, and of the anomaly map


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, with the AUROC on synthetic defects behind it."""

    pooling: Pooling
    statistics: PlaceStatistics
    map_statistics: PlaceStatistics
    synthetic_auroc: dict[str, float]  # of each pooling that was tried
    typicality: Typicality | None = None


def choose_score(graph: ScoringGraph, examples: Examples, data: TrainingData, plan: Plan, table: ModelTable) -> Choice:
    """Choose statistics by place and pooling for a trained model.

    Args:
        graph: The trained model, on the CPU, without statistics; its own pooling is not looked at, its localisation is.
        examples: y of the folder.
        data: The files of the folder; the select split is damaged and scored.
        plan: Format of the images.
        table: What the job has decided already.

    Raises:
        JobError: The job's pooling has a value that it cannot have.
    """
    if table.score == "complexity":
        return Choice(Pooling(), *NO_STATISTICS, {}, _typicality(graph, examples))
    if table.score == "iwae":
        return Choice(Pooling(), *NO_STATISTICS, {})
    if plan.target.whole:
        return Choice(Pooling(), *NO_STATISTICS, {})  # there is one place, and nothing to choose
    share = aligned_share(examples)
    aligned = table.aligned
    if aligned is None:
        aligned = share >= ALIGNED_FROM and len(examples.split["train"]) >= FEWEST_ALIGNED
    statistics = _statistics(graph, examples) if aligned else NO_STATISTICS
    what = "standardising each place, the images are aligned" if aligned else "every place alike, nothing is aligned"
    log.info("%s: the mean image holds %.0f %% of the variance", what, 100 * share)
    wanted = wanted_pooling(table)
    if wanted is not None:
        return Choice(wanted, *statistics, {})
    good, bad = _places(graph, statistics[0], data, plan)
    figures = {str(candidate): separation(candidate(good).numpy(), candidate(bad).numpy()) for candidate in POOLINGS}
    usual, best = plan.target.pooling, max(POOLINGS, key=lambda candidate: figures[str(candidate)])
    few = len(examples.split["train"]) < plan.target.few_images  # then too few are left to choose on
    reason = "clearly better on synthetic defects than the usual one"
    if few or figures[str(best)] < figures[str(usual)] + CLEARLY_BETTER:
        best, reason = usual, "the usual one: " + ("too few images to choose on" if few else "none is clearly better")
    ranked = sorted(figures.items(), key=lambda item: -item[1])[:SHOWN]
    log.info("score: %s (%s; AUROC on synthetic defects %.3f)", best, reason, figures[str(best)])
    log.info("the best on synthetic defects: %s", "; ".join(f"{value:.3f} {name}" for name, value in ranked))
    return Choice(best, *statistics, figures)


def wanted_pooling(table: ModelTable) -> Pooling | None:
    """The job's pooling, whose form the job file's reader has checked; None for "auto".

    Raises:
        JobError: It has a value that it cannot have.
    """
    kind, _, value = table.pooling.partition(":")
    if kind == "auto":
        return None
    try:
        return Pooling("top" if kind == "top" else "soft", float(value)) if value else Pooling()
    except ValueError as error:
        msg = f"'model.pooling' is '{table.pooling}': {error}"
        raise JobError(msg) from None


def aligned_share(examples: Examples) -> float:
    """Share of y's variance that its mean over images explains, less what chance would; 0 for a texture."""
    count = 0
    total = square = torch.zeros(())
    for y in examples.batches("train", BATCH, STATISTICS_IMAGES):
        total, square, count = total + y.sum(dim=0), square + y.square().sum(dim=0), count + len(y)
    if count < 2:
        return 0.0
    mean = total / count
    within = (square / count - mean.square()).mean() * count / (count - 1)
    between = mean.var(dim=(1, 2), unbiased=False).mean() - within / count
    return max(0.0, float(between / (between + within).clamp(min=1e-12)))


def _bounds(graph: ScoringGraph, batches: Iterable[Tensor]) -> Iterator[tuple[BoundMaps, Tensor]]:
    """What the score is made of for each batch, and the batch; the noise repeats."""
    generator = torch.Generator().manual_seed(0)
    for y in batches:
        noise = torch.randn((len(y), 1, *graph.network.latent_shape), generator=generator)
        yield graph.select_bound(y, noise, graph.bound(y, noise)), y


@torch.inference_mode()
def _statistics(graph: ScoringGraph, examples: Examples) -> tuple[PlaceStatistics, PlaceStatistics]:
    """Of what is pooled, and of the anomaly map."""
    pooled, shown = [], []
    for maps, y in _bounds(graph, examples.batches("train", BATCH, STATISTICS_IMAGES)):
        places = graph.places(maps)
        pooled.append(graph.standardise_places(places))
        shown.append(graph.localise(y, maps, 1, places))
    return _at_places(torch.cat(pooled)), _at_places(torch.cat(shown))


def _at_places(values: Tensor) -> PlaceStatistics:
    # A place where good images hardly differ must not turn a trifle into an alarm.
    scale = values.std(dim=0)
    return PlaceStatistics(values.mean(dim=0).clone(), scale.clamp(min=0.1 * float(scale.median())).clone())


@torch.inference_mode()
def _typicality(graph: ScoringGraph, examples: Examples) -> Typicality:
    """Fit to the select split: on images that were trained on, the bound is too good."""
    bounds = _bounds(graph, examples.batches("select", BATCH))
    return Typicality(torch.cat([graph.pair(maps, code_length(y)) for maps, y in bounds]))


@torch.inference_mode()
def _places(graph: ScoringGraph, statistics: PlaceStatistics, data: TrainingData, plan: Plan) -> tuple[Tensor, Tensor]:
    """Maps of held-out good images, and of damaged copies of them."""
    files = evenly_spaced(data.files_of("select"), SELECT_IMAGES)
    maps: tuple[list[Tensor], list[Tensor]] = ([], [])

    def score(pixels: NDArray[Any], image: Decoded, into: list[Tensor]) -> None:
        generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))
        noise = torch.randn((1, 1, *graph.network.latent_shape), generator=generator)
        y = graph.to_y(torch.from_numpy(pixels[None]))
        into.append(
            statistics(graph.standardise_places(graph.places(graph.select_bound(y, noise, graph.bound(y, noise)))))
        )

    with progress(log, "choose the score", len(files), "images") as advance:
        for image, copies in decode_with_defects(files, plan.image_format, DEFECTS_PER_IMAGE):
            advance()
            score(image.pixels, image, maps[0])
            for copy in copies:
                score(copy, image, maps[1])
    return torch.cat(maps[0]), torch.cat(maps[1])
