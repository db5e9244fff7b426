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


Sums = tuple[Tensor, ...]
"""What is added up over images: of all of them less some, it is that of the others."""


class InClosedForm(ABC):
    """What is fitted in one go: some sums over good images are gathered first, and suffice, or nearly."""

    def fit(self, batches: Batches) -> None:
        """Find the density of good images.

        Args:
            batches: y of good images, two at least.
        """
        self.fit_to(add(self.gather(y) for y in batches()), batches)

    @abstractmethod
    def gather(self, y: Float[Tensor, "B D h w"]) -> Sums:
        """The sums over a batch."""

    @abstractmethod
    def fit_to(self, sums: Sums, batches: Batches) -> None:
        """Find the density of good images from their sums.

        Args:
            sums: Of all that `batches` goes through.
            batches: The images again, for what the sums leave open.
        """


class Expert(InClosedForm, nn.Module):
    """A density of y, or of its places, with a map of how unlikely each place is.

    It is a torch module without trainable weights: what `fit` finds lies in buffers, and is exported with the graph.
    """

    summary: str  # a few words for people
    aspect: str  # what is most unusual where it counts most: ends the caption "most unusual ..." of an image
    view: View  # of the features
    areas: tuple[float, ...] = WHOLE_PLACES  # shares of the places that its map is pooled over

    @abstractmethod
    def forward(self, y: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Minus the log-density of each place, in nats, up to a constant of the place."""


def add(sums: Iterable[Sums]) -> Sums:
    """The sums over all; nothing of nothing."""
    total: Sums = ()
    for each in sums:
        total = tuple(one + other for one, other in zip(total, each, strict=True)) if total else each
    return total


def to_half(values: Tensor) -> Tensor:
    """Round to what half precision can hold: a large buffer is then stored in half its size, and loses nothing."""
    return values.half().to(values.dtype)
