"""Segment: y is the label of each pixel, c the image; a latent says which of several likely labellings is meant."""

from vaecore.tasks.base import Segmentation

TASK = Segmentation(
    summary="Label each pixel of images: background, or one of some classes.",
    latent_channels=4,
    gain=(0.6, 1.6),
)
