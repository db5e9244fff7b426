"""Whole images under a model of windows, each scored by a fold that has seen none of its windows.

Every window of an image counts here, not those alone that were fitted to. Its features are made, scored and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from logging import Logger
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base.progress import progress
from pipelines.data.examples import Examples
from pipelines.data.extractor import Extractor, find_extractor
from pipelines.data.training_images import TrainingData
from pipelines.errors import DataError
from pipelines.images import Failed
from pipelines.images.windows import Windows
from pipelines.models.inputs import decode_for
from pipelines.models.session import SCORES
from pipelines.models.windows import pooled
from vaecore.graphs.scoring import ScoringGraph
from vaecore.representations import Features

BATCH = 32  # windows


def score_whole_images(
    images: Sequence[int],
    graph_of: Mapping[int, ScoringGraph],
    examples: Examples,
    data: TrainingData,
    overlap: int,
    log: Logger,
) -> dict[int, dict[str, NDArray[Any]]]:
    """Score images as the exported file would: the same graph, on the same windows, pooled by the same rule.

    Args:
        images: Indices.
        graph_of: The fold of each image.
        examples: Features of the windows that were fitted to, which are not made again.
        data: Where images and windows are.
        overlap: Of windows.
        log: Told of the progress.

    Returns:
        For each image that can still be read its score, rate and distortion, and its map on the grid of its places.

    Raises:
        DataError: None of them can be read any more.
    """
    some = graph_of[images[0]]
    features = cast("Features", some.representation)
    extractor = Extractor(find_extractor(features, some.image_format))
    index_of = {data.files[index].relative: index for index in images}
    rows: dict[int, dict[int, int]] = {index: {} for index in images}
    for row, (owner, number) in enumerate(zip(data.owners, data.numbers, strict=True)):
        rows.get(owner, {})[number] = row
    found: dict[int, dict[str, NDArray[Any]]] = {}
    with progress(log, "calibrate", len(images), "images") as advance:
        for image in decode_for([data.files[index] for index in images], some.image_format):
            advance()
            if isinstance(image, Failed):
                continue
            index = index_of[image.file.relative]
            windows = Windows.over((image.height, image.width), features.input_size, overlap)
            parts = _run(graph_of[index], windows.cut(image.pixels, BATCH), rows[index], examples, extractor)
            found[index] = _on_grid(pooled(windows, parts, SCORES), graph_of[index], features)
    if not found:
        raise DataError(f"none of {len(images)} images to calibrate on can be read any more, such as {min(index_of)}")
    return found


def _run(
    graph: ScoringGraph,
    cuts: Iterable[NDArray[Any]],
    rows: Mapping[int, int],
    examples: Examples,
    extractor: Extractor,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Outputs of the graph for some windows at a time; `rows` are those of windows whose features are there."""
    noise, start = torch.zeros(1, 1, *graph.network.latent_shape), 0  # the bound is exact: noise makes no difference
    for cut in cuts:
        known = {at: rows[start + at] for at in range(len(cut)) if start + at in rows}
        fresh = [at for at in range(len(cut)) if at not in known]
        parts = [torch.from_numpy(each).float() for each in extractor.batches(cut[fresh])]
        parts += [examples.extracted(list(known.values()))] if known else []
        order = np.argsort([*fresh, *known])
        with torch.inference_mode():
            values = graph.score_extracted(
                torch.cat(parts)[order], torch.from_numpy(cut), noise.expand(len(cut), -1, -1, -1, -1)
            )
        yield {name: values[name].numpy() for name in SCORES}
        start += len(cut)


def _on_grid(found: dict[str, NDArray[Any]], graph: ScoringGraph, features: Features) -> dict[str, NDArray[Any]]:
    """The same, with the map at the middles of its own places alone: between them it is interpolated."""
    grid = features.size if graph.combination is None else graph.combination.size
    rows, columns = (max(1, side // places) for side, places in zip(features.input_size, grid, strict=True))
    return found | {"anomaly_map": found["anomaly_map"][rows // 2 :: rows, columns // 2 :: columns].copy()}
