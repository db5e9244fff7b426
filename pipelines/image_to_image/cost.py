"""What a network costs whoever runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SIDE = 8  # of the image that is counted on, in the coarsest grid's cells: what is done once for an image hardly counts


@torch.no_grad()
def count_multiplications(network: nn.Module, channels: int, multiple: int) -> float:
    """Count the multiplications of a network's convolutions, for each pixel of its input.

    Args:
        network: Takes images (1, C, H, W).
        channels: C.
        multiple: Of H and W.
    """
    found = 0.0
    side = SIDE * multiple

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:  # noqa: ANN401 - as torch has it
        nonlocal found
        assert isinstance(module, nn.Conv2d)  # noqa: S101 - for the type checker
        found += module.weight.numel() * output.shape[2] * output.shape[3]

    hooks = [each.register_forward_hook(count) for each in network.modules() if isinstance(each, nn.Conv2d)]
    network(torch.zeros(1, channels, side, side))
    for hook in hooks:
        hook.remove()
    return found / side**2
