"""Brightness and contrast of an image, and how to give every image the same."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

USUAL_BRIGHTNESS, USUAL_CONTRAST = 0.5, 0.2  # of standardised images: most values stay within [0, 1]
LEAST_CONTRAST = 0.002  # half an 8-bit level: below it an image shows nothing but noise, which must not be blown up


def exposure(image: Float[Tensor, "B C h w"]) -> tuple[Tensor, Tensor]:
    """Brightness and contrast of each image, (B, 1, 1, 1): mean and standard deviation over all its values."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    variance = (image - mean).square().mean(dim=(1, 2, 3), keepdim=True)
    return mean, variance.clamp(min=LEAST_CONTRAST**2).sqrt()


def standardise_exposure(image: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Give every image the usual brightness and contrast."""
    mean, std = exposure(image)
    return (image - mean) * (USUAL_CONTRAST / std) + USUAL_BRIGHTNESS
