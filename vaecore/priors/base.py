"""What a prior is to a training job, and what networks with another prior have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian, LatentVariableModel
from vaecore.likelihoods.base import Distribution, Likelihood

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


class DensityByLatent(ABC):
    """A density p(z) that says what each latent has of its logarithm."""

    __slots__ = ()

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of the log-density, in nats."""

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """Log-density of all latents together."""
        return self.log_prob(z).sum(dim=(2, 3, 4))

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of log q(z) - log p(z), an estimate of KL(q || p) that can be below zero."""
        return posterior.log_prob(z) - self.log_prob(z)


class OtherPrior(nn.Module):
    """Any network that satisfies `LatentVariableModel`, with another prior: posterior and decoder are its own."""

    latent_shape: tuple[int, int, int]
    likelihood: Likelihood

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network
        self.likelihood, self.latent_shape = self._inner.likelihood, self._inner.latent_shape

    @property
    def _inner(self) -> LatentVariableModel:
        return cast("LatentVariableModel", self.network)

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        return self._inner.posterior(y)

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        return self._inner.decode(z)
