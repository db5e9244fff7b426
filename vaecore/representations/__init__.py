"""What the y of the bound is made of (`Pixels` or `Features`), and what is read from it.

image_format                    a file's numbers to [0, 1] and back, resizing
backbones, weights, exposure    what features are made of
complexity                      the length of an image under a code that was never trained, and scores made with it
"""

from vaecore.representations.base import Representation
from vaecore.representations.features import FINE, PLACES, WIDE, Features, View
from vaecore.representations.pixels import Pixels

__all__ = [
    "FINE", "PLACES", "WIDE", "Features", "Pixels", "Representation", "View", "backbones", "complexity",
    "image_format", "weights",
]  # fmt: skip
