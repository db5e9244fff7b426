"""Some of many, evenly over their order: sub-folders are cameras, or days, and the first files are of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, the first and the last among them, in order; all where they are no more.

    >>> spread("abcdefg", 3), spread("ab", 3)
    (['a', 'd', 'g'], ['a', 'b'])
    """
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]
