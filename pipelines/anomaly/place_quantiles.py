"""How unusual a place of an image is, in units that need no knowledge of the model: the share of good images' places.

Calibration keeps a table of the values of good images' anomaly maps, dense where they are rare. The share of them as
high as a value is a p-value of the conformal kind for one place. It promises nothing for a whole image, which has many
places: that is what the score's own p-value is for.

Belongs to the scoring side: numpy and pydantic only.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

_STEPS = (8.0, 6.3, 5.0, 4.0, 3.2, 2.5, 2.0, 1.6, 1.25, 1.0)  # ten to a decade, of nearly equal ratio
_SHARES = tuple(float(f"{step}e-{decade}") for decade in range(1, 6) for step in _STEPS if decade > 1 or step <= 5)
_DIGITS = 7  # of a value in the table: what float32 holds


class GoodPlaces(BaseModel):
    """Values of good images' anomaly maps against the share of places that are as high.

    Attributes:
        places: Places of good images that stand behind the table: those of the network's grid, since the pixels between
            them are interpolated and say nothing of their own.
        shares: Falling, from one half (more where many values are equal) to 1/(places + 1).
        values: Rising, in the map's nats per pixel; the last one is the highest of all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    places: int = Field(ge=1)
    shares: tuple[FiniteFloat, ...] = Field(min_length=1)
    values: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if len(self.shares) != len(self.values):
            raise ValueError(f"{len(self.shares)} shares for {len(self.values)} values: calibrate again")
        falling = all(high > low for high, low in zip(self.shares, self.shares[1:], strict=False))
        if not falling or list(self.values) != sorted(self.values) or not 0 < self.shares[-1] <= self.shares[0] <= 1:
            raise ValueError("shares must fall within 0 and 1 while the values rise: calibrate again")
        return self

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], places: int) -> Self:
        """Make the table.

        Args:
            values: Of good images' maps, any shape, an even share of each image; finite.
            places: How many of them count as separate places; shares below 1/(places + 1) are out of reach.

        >>> table = GoodPlaces.of(np.arange(999.0), 999)
        >>> table.shares[-1], table.values[-1], table.value(0.01)
        (0.001, 998.0, 989.0)
        """
        ordered = np.sort(values, axis=None)
        smallest = 1 / (places + 1)
        entries: list[tuple[float, float]] = []
        for share in [*(share for share in _SHARES if share > smallest), smallest]:
            rank = 1 - (share * (places + 1) - 1) / max(1, places - 1)  # 1: the highest value itself
            value = float(f"{np.quantile(ordered, min(max(rank, 0.0), 1.0)):.{_DIGITS}g}")
            as_high = (1 + places * float(np.mean(ordered >= value))) / (places + 1)
            tied = as_high > 1.05 * share + 2 * smallest
            entry = (as_high if tied else share, value)
            if not entries or (entry[0] < entries[-1][0] and value > entries[-1][1]):
                entries.append(entry)
        if entries[-1][0] > smallest:
            entries.append((smallest, entries[-1][1]))  # of what is above them all
        shares, found = zip(*entries, strict=True)
        return cls(places=places, shares=shares, values=found)

    @property
    def smallest(self) -> float:
        """The smallest share that the table can tell."""
        return self.shares[-1]

    def p_values(self, anomaly_map: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The share of good images' places that are as unusual as each place of a map.

        Between entries of the table the share's logarithm is interpolated.

        Args:
            anomaly_map: Any shape.

        Returns:
            From `smallest`, for values above every entry, to 1, for values below every entry. NaN stays NaN.

        >>> table = GoodPlaces(places=99, shares=(0.5, 0.1, 0.01), values=(0.0, 1.0, 2.0))
        >>> table.p_values(np.array([-1.0, 1.0, 9.0])).round(6).tolist()
        [1.0, 0.1, 0.01]
        """
        values, first = np.unique(
            self.values, return_index=True
        )  # of equal values the largest share: ties count as high
        logs = np.log(np.array(self.shares)[first])
        asked = np.asarray(anomaly_map)
        found = np.exp(np.interp(asked, values, logs, left=0.0))
        return np.where(asked > values[-1], self.smallest, found)

    def value(self, share: float) -> float:
        """The value that this share of good places reaches; the highest one where `share` is smaller than all."""
        logs = np.log(np.array(self.shares))[::-1]
        return float(np.interp(math.log(share), logs, np.array(self.values)[::-1]))
