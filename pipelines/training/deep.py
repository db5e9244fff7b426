"""Models that are trained by gradient: fit, close the prior, freeze the scale, and set what scores are made with."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn
from torchvision.utils import make_grid

from pipelines.data.examples import STATISTICS_BATCH, Examples
from pipelines.data.plan import Plan
from pipelines.jobfile.job import Job
from pipelines.training.fit import Recipe, fit
from pipelines.training.network import gather_circumstances
from pipelines.training.options import find_prior, find_score_kind
from pipelines.training.temperature import set_temperature
from vaecore.bound import BoundMaps, LatentVariableModel, bound_maps
from vaecore.experts import WHOLE_PLACES, Combination
from vaecore.graphs.scoring import ScoringGraph, squared_error
from vaecore.likelihoods import SharedGaussianLikelihood
from vaecore.networks import ClassPrior
from vaecore.representations import Representation
from vaecore.representations.complexity import Typicality, code_length

PRIOR_IMAGES = 20_000  # whose latents tell a prior that is found after training
BATCH = 16
SHEET = 8  # images of the sheet of reconstructions


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model in its graph, and what was measured."""

    graph: ScoringGraph
    figures: dict[str, float]


def fit_deep(
    job: Job,
    plan: Plan,
    representation: Representation,
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    *,
    work: Path,
    device: str,
    on_check: Callable[[int, Mapping[str, float]], None],
) -> Fitted:
    """Train a model, and put it into its scoring graph.

    Args:
        job: What is asked.
        plan: What was chosen from the images.
        representation: What y is.
        model: The network with its first weights.
        examples: y of the folder.
        recipe: Settings of the training.
        work: Checkpoints; a training that was killed goes on from there.
        device: "cpu" or "cuda".
        on_check: Told the step and the figures of every check.
    """
    prior, circumstances = find_prior(job), gather_circumstances(job, representation)
    if prior.begin is not None:
        prior.begin(model, _some_of(examples, circumstances.components))
    done = fit(model, examples, recipe, folder=work, device=device, on_check=on_check)
    model.cpu().eval()
    if prior.finish is not None:
        images = examples.batches("train", STATISTICS_BATCH, PRIOR_IMAGES)
        model = prior.finish(model, images, circumstances).eval()
    network: LatentVariableModel = model  # type: ignore[assignment]  # a Protocol that modules satisfy
    if isinstance(network.likelihood, SharedGaussianLikelihood):
        generator = torch.Generator().manual_seed(0)
        network.likelihood.set_variance(squared_error(network, examples.batches("train", 32), generator).mean())
    figures = {"steps": float(done)}
    if isinstance(model, ClassPrior):
        figures["temperature"] = set_temperature(model, examples)
    kind = find_score_kind(job, plan)
    plain = ScoringGraph(model, plan.image_format, representation).eval()
    graph = ScoringGraph(
        model, plan.image_format, representation, kind=kind,
        combination=_combination(plain, examples) if kind == "places" else None,
        typicality=_typicality(plain, examples) if kind == "complexity" else None,
    )  # fmt: skip
    return Fitted(graph.eval(), figures)


def reconstruction_sheet(network: LatentVariableModel, examples: Examples) -> bytes:
    """A PNG of held-out images above their reconstructions."""
    y = examples.batch(examples.split["select"][:SHEET])
    noise = torch.randn((len(y), 1, *network.latent_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = bound_maps(network, y, noise).likelihood.mean
    sheet = make_grid(torch.cat([y, mean]).clamp(0, 1), nrow=len(y), padding=4, pad_value=1.0)
    buffer = io.BytesIO()
    PillowImage.fromarray((sheet.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@torch.inference_mode()
def _combination(graph: ScoringGraph, examples: Examples) -> Combination:
    """Statistics of the bound's map, from images that were not trained on."""
    # A deep VAE's y is not recentred: its mean over the places is what an image shows on average.
    maps, summaries = zip(*((maps, y.mean(dim=(2, 3))) for maps, y in _bounds(graph, examples)), strict=True)
    places = torch.cat([graph.representation.sum_by_place(each.distortion) for each in maps])
    images, *size = places.shape
    combination = Combination([(size[0], size[1])], [WHOLE_PLACES], images=images, dims=summaries[0].shape[1])
    combination.fit([places], torch.cat(summaries))
    return combination


@torch.inference_mode()
def _typicality(graph: ScoringGraph, examples: Examples) -> Typicality:
    """Fit to images that were not trained on: on the others, the bound is too good."""
    return Typicality(torch.cat([graph.pair(maps, code_length(y)) for maps, y in _bounds(graph, examples)]))


def _bounds(graph: ScoringGraph, examples: Examples) -> list[tuple[BoundMaps, Tensor]]:
    """The bound of each batch of the scale split, and the batch; the noise repeats."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for y in examples.batches("scale", BATCH):
        noise = torch.randn((len(y), 1, *graph.network.latent_shape), generator=generator)
        found.append((graph.bound(y, noise), y))
    return found


def _some_of(examples: Examples, count: int) -> Tensor:
    """y of `count` training images; of fewer images, the first ones come again."""
    images = examples.split["train"]
    drawn = torch.cat(list(examples.batches("train", STATISTICS_BATCH, min(count, len(images)))))
    return drawn.repeat(-(-count // len(drawn)), 1, 1, 1)[:count]
