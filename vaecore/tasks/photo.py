"""Photo: y is a picture as it could have been, c what a camera, a phone or a JPEG made of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.damage.camera import camera_noise
from vaecore.damage.degradations import jpeg, jpeg_within, resized
from vaecore.tasks.base import Restoration

SIZES = (0.75, 2.0)  # of the picture in the camera, in those of the file: noise is coarser than pixels, or finer
UNTOUCHED = 0.1  # strength below which a picture stays as it is: such pictures must come out unchanged
QUALITIES = (50, 98)  # of JPEG, the higher ones more often
SAVED = 3 / 4  # of the pictures are JPEG
AGAIN = 1 / 3  # of these were saved before
SHARP_COLOUR = 1 / 3  # of JPEG files keep colours at full size


def camera(y: Float[Tensor, "B C H W"], strength: Float[Tensor, " B"], generator: torch.Generator) -> Tensor:
    """Noise of a camera, at the size that the camera had, and JPEG: once, twice or not at all.

    Source: the order of things as in Guo et al. 2019, "Toward convolutional blind denoising of real photographs",
    section 3.1; sizes and second JPEG as in Zhang et al. 2023, "Practical blind image denoising via Swin-Conv-UNet".
    """
    device = generator.device
    shown = y.expand(-1, 3, -1, -1)
    factor = SIZES[0] * (SIZES[1] / SIZES[0]) ** float(torch.rand((), generator=generator, device=device))
    taken = resized(shown, [round(length * factor / 2) * 2 for length in y.shape[2:]])
    noise = resized(camera_noise(taken, strength, generator) - taken, y.shape[2:])
    c = y + (noise if y.shape[1] == 3 else noise.mean(dim=1, keepdim=True))
    saved = torch.rand(len(y), generator=generator, device=device) < SAVED
    c = torch.cat(
        [save(each[None], generator) if is_saved else each[None] for each, is_saved in zip(c, saved, strict=True)]
    )
    return torch.where((strength < UNTOUCHED).to(c.device)[:, None, None, None], y.to(c), c)


def save(image: Float[Tensor, "1 C H W"], generator: torch.Generator) -> Tensor:
    """Save as JPEG, and before that perhaps once more as part of a larger file, whose blocks begin elsewhere.

    Source: Jiang et al. 2021, "Towards flexible blind JPEG artifacts removal", section 3.3.
    """
    device = generator.device
    colour, again, *worse = torch.rand(4, generator=generator, device=device).tolist()
    low, high = QUALITIES
    last, first = (round(high - (high - low) * each**2) for each in worse)
    sampling = "4:4:4" if colour < SHARP_COLOUR else "4:2:0"
    if again < AGAIN:
        down, right = torch.randint(8, (2,), generator=generator, device=device).tolist()
        image = jpeg_within(image, first, (down, right), sampling)
    return jpeg(image, last, sampling)


TASK = Restoration(
    summary="Take noise and JPEG artefacts out of photographs, as cameras and phones make them.",
    damages={"camera": camera},
    level="noise of the sensor: below 0.1 no damage at all, 1 that of a small sensor at a high sensitivity, 0.5 a "
    "quarter of that",
    strengths=(0.0, 1.0),
    levels=(0.3, 0.5, 0.8),
)
