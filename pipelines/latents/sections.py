"""The parts of the page of what a model believes: each a function from the model, and its images, to what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.base.safe_text import printable
from pipelines.images import Failed
from pipelines.latents import sheets
from pipelines.latents.posteriors import Codes, choose_far_pairs, correlate, project_to_plane, rank_by_elbo, to_batch
from pipelines.latents.sheets import Sheet, decode, fit_side, make_sheet, show_input
from pipelines.models.inputs import decode_for
from pipelines.report.explore_page import (
    SPRITE_ACROSS,
    Picture,
    embed_picture,
    lay_out_bars,
    lay_out_cells,
    lay_out_points,
)
from vaecore.aggregate import AggregateKl, Estimate, aggregate_kl, even_posterior
from vaecore.bound import DiagonalGaussian, GenerativeModel
from vaecore.graphs.scoring import ScoringGraph
from vaecore.networks import TwoLevelVAE
from vaecore.networks.blocks import StandardPrior
from vaecore.priors import Autoencoder

SAMPLES, SAMPLES_ACROSS = 60, 12
CLASSES = 20  # whose images are made up
MAPS = (15, 30)  # places along each side of the maps of two latents
MOVED, STEPS = 10, 13  # latents that are moved, pictures of each
PAIRS, BETWEEN = 4, 9
SHOWN = 8  # images of the best, the median, the worst
CORRELATED = 32  # latents, at most
BY_CHANCE = 0.7  # share of a divergence, made by the number of images alone, above which it is no more than chance
LITTLE = 0.5  # nats by chance below which the images are enough to see that nothing is wrong

Section = dict[str, Any]


def has_prior(graph: ScoringGraph) -> bool:
    """Return whether latents can be drawn."""
    return not isinstance(graph.model, Autoencoder)


def is_standard(graph: ScoringGraph) -> bool:
    """Return whether every latent is standard normal in itself."""
    return isinstance(graph.model, StandardPrior)


def name_latents(graph: ScoringGraph) -> list[str]:
    """Name each latent, by its place among all Z h w."""
    channels, height, width = graph.network.latent_shape
    lower = graph.model.lower_channels if isinstance(graph.model, TwoLevelVAE) else channels
    names = []
    for channel in range(channels):
        upper = channel >= lower
        name = f"upper {channel - lower + 1}" if upper else str(channel + 1)
        cells_of = [f"{name} at {row + 1},{column + 1}" for row in range(height) for column in range(width)]
        names += [name] if height * width == 1 else cells_of
    return names


def show_samples(graph: ScoringGraph, classes: Sequence[str]) -> Section:
    """Draw images from the prior, a row for each class where there are any."""
    shown = classes[:CLASSES]
    picture = _to_picture(sheets.draw_samples(graph, SAMPLES, SAMPLES_ACROSS, len(shown)))
    return {"picture": picture, "count": SAMPLES_ACROSS * len(shown) or SAMPLES, "classes": [*map(printable, shown)]}


def show_maps(graph: ScoringGraph, codes: Codes | None) -> Section | None:
    """Draw all combinations of two latents, if there are two."""
    if graph.network.latent_shape != (2, 1, 1) or isinstance(graph.model, TwoLevelVAE):
        return None
    maps = []
    for places in MAPS:
        axes = sheets.choose_axes(graph, None if codes is None else codes.means, places)
        if axes is None:
            return None
        maps.append({"places": places, "picture": _to_picture(sheets.draw_map(graph, axes))})
    return {"sheets": maps, "standard": is_standard(graph), "prior": has_prior(graph)}


def show_traversals(graph: ScoringGraph, codes: Codes | None) -> Section | None:
    """Move one latent at a time."""
    names = name_latents(graph)
    if codes is None:
        zeros = torch.zeros(1, *graph.network.latent_shape)
        prior = sheets.find_prior(graph, zeros, None)
        if prior is None:
            return None
        base, around = prior.mean, None
        chosen = sheets.choose_latents(graph, base, prior, MOVED)
    else:
        number = rank_by_elbo(codes, 1).get("median", [0])[0]
        base, around = codes.posterior.mean[number : number + 1], codes.files[number].relative
        prior = cast("DiagonalGaussian", sheets.find_prior(graph, base, codes.posterior.mean))
        weight = codes.kl if has_prior(graph) else codes.variances
        chosen = [int(latent) for latent in np.argsort(-weight.ravel(), kind="stable")[:MOVED]]
    z = sheets.traverse(graph, base, prior, chosen, STEPS)
    return {
        "picture": _to_picture(make_sheet(graph, decode(graph, z, fit_side(STEPS)), STEPS)),
        "rows": [names[latent] for latent in chosen],
        "columns": [f"{n:+d}".replace("-", "\N{MINUS SIGN}").replace("+0", "0") for n in range(-3, 4)],
        "around": around,
        "all": len(names),
        "prior": has_prior(graph),
        "levels": isinstance(graph.model, TwoLevelVAE),
        "grid": graph.network.latent_shape[1:] != (1, 1),
    }


def show_interpolations(graph: ScoringGraph, codes: Codes) -> Section | None:
    """Draw what lies on straight lines from image to image."""
    pairs = choose_far_pairs(codes, PAIRS)
    if not pairs:
        return None
    side = fit_side(BETWEEN + 2)
    lines = decode(graph, sheets.interpolate(codes.posterior.mean, pairs, BETWEEN), side).unflatten(0, (-1, BETWEEN))
    rows = []
    for (first, second), line in zip(pairs, lines, strict=True):
        ends = decode_originals(graph, codes, (first, second), side)
        rows += [ends[:1], line, ends[1:]]
    labels = codes.labels
    return {
        "picture": _to_picture(make_sheet(graph, torch.cat(rows), BETWEEN + 2)),
        "pairs": [[labels[i] or codes.files[i].relative for i in pair] for pair in pairs],
        "labelled": len(set(labels)) > 1,
    }


def show_projection(graph: ScoringGraph, codes: Codes) -> Section:
    """Show images as points of a plane."""
    found, how = project_to_plane(codes)
    side = codes.thumbnails[0].shape[0]
    across, down = min(SPRITE_ACROSS, len(codes.files)), -(-len(codes.files) // SPRITE_ACROSS)
    sheet = sheets.make_sprite(codes.thumbnails, SPRITE_ACROSS)
    labels = codes.labels
    return {
        "scatter": lay_out_points(found, labels, how, standard=how == "latents" and is_standard(graph)),
        "labelled": len(set(labels)) > 1,
        "sprite": embed_picture(sheet, across * side, down * side, "jpeg"),
        "shown": len(codes.files),
    }


def show_use(graph: ScoringGraph, codes: Codes) -> Section:
    """Count the latents that depend on the image, and show what each costs."""
    active, names, prior = codes.active.ravel().tolist(), name_latents(graph), has_prior(graph)
    values = (codes.kl if prior else codes.variances).ravel().tolist()
    drawn = lay_out_bars(values, active, names, "nats" if prior else "of variance")
    return {
        "several": len(codes.files) > 1,
        "active": sum(active),
        "all": len(active),
        "rate": float(codes.kl.sum()),
        "bars": drawn,
        "top": max(values),
        "prior": prior,
        "standard": is_standard(graph),
    }


def show_correlations(graph: ScoringGraph, codes: Codes) -> Section | None:
    """Show which latents hold the same information."""
    names, variances = name_latents(graph), codes.variances.ravel()
    order = [int(i) for i in np.argsort(-variances, kind="stable")[:CORRELATED] if codes.active.ravel()[i]]
    if len(order) < 2 or len(codes.files) < 3:
        return None
    order.sort()
    matrix = correlate(codes, order)
    apart = matrix - np.diag(np.diag(matrix))
    row, column = (int(i) for i in np.unravel_index(np.abs(apart).argmax(), apart.shape))
    shown = [names[i] for i in order]
    return {
        "cells": lay_out_cells(matrix, shown),
        "names": shown,
        "matrix": matrix,
        "strongest": (shown[row], shown[column], float(matrix[row, column])),
        "all": len(names),
        "grid": graph.network.latent_shape[1:] != (1, 1),
    }


def show_extremes(graph: ScoringGraph, codes: Codes) -> Section:
    """Show the images that the model finds likeliest, middling, least likely; under each its reconstruction."""
    drawable, parts = graph.representation.drawable, []
    for name, chosen in rank_by_elbo(codes, SHOWN).items():
        seen = decode_originals(graph, codes, chosen, fit_side(SHOWN))
        if drawable:
            made = decode(graph, codes.posterior.mean[list(chosen)], fit_side(SHOWN))
            seen = torch.cat([seen, made])
        elbos = codes.elbo[list(chosen)]
        parts.append(
            {
                "name": name,
                "picture": _to_picture(make_sheet(graph, seen, len(chosen))),
                "low": float(elbos.min()),
                "high": float(elbos.max()),
                "files": [codes.files[i].relative for i in chosen],
            }
        )
    return {"parts": parts, "drawable": drawable, "prior": has_prior(graph)}


def show_divergences(graph: ScoringGraph, codes: Codes) -> Section | None:
    """Measure how far all images together are from the prior, and how far they would be if they filled it."""
    if not has_prior(graph):
        return None
    model = cast("GenerativeModel", graph.model)
    generator = torch.Generator().manual_seed(0)
    found = aggregate_kl(model, codes.posterior, generator)
    filling = even_posterior(model, codes.posterior, generator)
    even = None if filling is None else aggregate_kl(model, filling, generator)
    return {"forward": _compare(found, even, "forward"), "reverse": _compare(found, even, "reverse")}


def decode_originals(graph: ScoringGraph, codes: Codes, chosen: Sequence[int], side: int) -> Tensor:
    """Decode images once more, as the model is given them."""
    files = [codes.files[i] for i in chosen]
    seen = []
    for image in decode_for(files, graph.image_format):
        if isinstance(image, Failed):  # gone meanwhile
            raise OSError(f"{image.file.path}: {image.reason}")
        seen.append(show_input(graph, to_batch(image), side))
    return torch.cat(seen)


def _compare(found: AggregateKl, even: AggregateKl | None, name: str) -> Section:
    """Return a divergence beside that of images that fill the prior, and what the two mean together."""
    mine: Estimate = getattr(found, name)
    filled: Estimate | None = None if even is None else getattr(even, name)
    says = "more than chance"
    if filled is None:
        says = "unknown"
    elif filled.value > BY_CHANCE * mine.value:
        says = "none" if filled.value < LITTLE else "too few images"
    return {"value": mine.value, "error": mine.error, "even": filled and filled.value, "says": says}


def _to_picture(sheet: Sheet) -> Picture:
    return embed_picture(sheet.png, sheet.width, sheet.height)
