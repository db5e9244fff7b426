"""What the y of the bound is made of (`Pixels` or `Features`), and what is read from it.

image_format                    a file's numbers to [0, 1] and back, resizing
backbones, moments, exposure    what features are made of
pooling, localisation           from nats at each place to a score and to a map
complexity                      the length of an image under a code that was never trained
"""

from vaecore.representations.base import Representation, Smooth
from vaecore.representations.features import Features
from vaecore.representations.pixels import Pixels

__all__ = [
    "Features", "Pixels", "Representation", "Smooth", "backbones", "complexity", "image_format", "localisation",
    "moments", "pooling",
]  # fmt: skip
