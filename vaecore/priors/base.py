"""What a prior is to a training job: facts and plain functions, no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

COMPONENTS = 50


def single(values: Tensor) -> Tensor:
    """The same in single precision, unless they are in double."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def full_precision(z: Tensor) -> Iterator[None]:
    """No half precision where terms cancel: products of matrices in it err by nats on narrow components."""
    if not torch.is_autocast_enabled(z.device.type):  # such as in an export, whose graph knows no such regions
        yield
        return
    with torch.autocast(z.device.type, enabled=False):
        yield


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a prior may need to know of the training."""

    components: int
    shape: tuple[int, int, int]  # of y: C, H, W
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorKind:
    """One choice of p(z). What wraps a network satisfies `vaecore.bound.LatentVariableModel`, as the network does."""

    summary: str  # a few words for people; may hold {components}
    wrap: Callable[[nn.Module, Circumstances], nn.Module]  # from a network to what is trained
    components: bool = False  # whether their number has a meaning
    density: bool = True  # whether there is one: without it nothing can be drawn, and nothing is a bound
    begin: Callable[[nn.Module, Float[Tensor, "K C H W"]], None] | None = None  # given y of so many training images
    # From what was trained, and batches of y of the training images, to what is exported.
    finish: Callable[[nn.Module, Iterable[Tensor], Circumstances], nn.Module] | None = None
    # From a network to what the exported weights are read into; default: what is trained.
    exported: Callable[[nn.Module, Circumstances], nn.Module] | None = None
