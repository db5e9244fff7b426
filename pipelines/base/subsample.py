"""Some of many, evenly over their order: sub-folders are cameras, or days, and the first files are of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, from the first to the last, in order; all where they are no more.

    >>> evenly_spaced("abcdefg", 3), evenly_spaced("ab", 3), evenly_spaced("ab", 1)
    (['a', 'd', 'g'], ['a', 'b'], ['a'])
    """
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)]
