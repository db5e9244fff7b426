"""Colorize: y is the chroma of a colour image, c its luma; a latent says which of its likely colourings is meant."""

from vaecore.tasks.base import Colorization

TASK = Colorization(
    summary="Give grey images colours that are likely for what they show.",
    latent_channels=16,
    strides=(4, 8, 16, 32),
    side=192,
    short_side=288,
    least_view=0.6,
)
