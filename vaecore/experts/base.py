"""What every expert is: a density of y that is fitted in closed form, and says how unlikely each place is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor, nn

from vaecore.representations import View

WHOLE_PLACES = (0.01, 0.1)
"""Small defects show in the highest hundredth of the places, large ones in the highest tenth."""
SINGLE_PLACES = (0.001, 0.1)
"""The same where maps are not averaged over their neighbours: a single place says something of its own."""

Batches = Callable[[], Iterable[Float[Tensor, "B D h w"]]]
"""Goes through y of good images once each time it is called, a batch at a time: they may not fit into memory."""


class Expert(nn.Module, ABC):
    """A density of y, or of its places, with a map of how unlikely each place is.

    It is a torch module without trainable weights: what `fit` finds lies in buffers, and is exported with the graph.
    """

    summary: str  # a few words for people
    view: View  # of the features
    areas: tuple[float, ...] = WHOLE_PLACES  # shares of the places that its map is pooled over

    @abstractmethod
    def fit(self, batches: Batches) -> None:
        """Find the density of good images.

        Args:
            batches: y of good images, two at least; the expert may go through them several times.
        """

    @abstractmethod
    def forward(self, y: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Minus the log-density of each place, in nats, up to a constant of the place."""


def to_half(values: Tensor) -> Tensor:
    """Round to what half precision can hold: a large buffer is then stored in half its size, and loses nothing."""
    return values.half().to(values.dtype)
