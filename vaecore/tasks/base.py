"""What a task is: a target, what the model is given, a likelihood and a graph. Facts, no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from vaecore.image_format import ImageFormat

GraphBuilder = Callable[[nn.Module, ImageFormat, tuple[int, int]], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One entry of the table in the design: everything else (training, export, batch job, report) is shared."""

    summary: str  # one sentence for people
    network: Callable[..., nn.Module]  # called with channels, size, likelihood and the job's model options
    likelihoods: tuple[str, ...]  # names that the job file may choose from; the first is the default
    graph: GraphBuilder  # what gets exported
    outputs: Mapping[str, str]  # output name -> unit, in graph order
    scores: bool  # True: takes integer images and gives anomaly scores; False: restores float images
