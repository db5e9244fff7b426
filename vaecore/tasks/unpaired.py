"""Unpaired: y is the clean image, c a damaged one; the damage is learned from damaged images without clean twins."""

from vaecore.tasks.base import Unpaired

TASK = Unpaired(
    summary="Mend images with the damage that a folder of damaged images has, without their clean twins.",
    level="as in the damaged images that it was trained on",
)
