"""What makes c from y: noise, JPEG, smaller pictures. Plain functions; an equal generator gives equal damage.

Images are (B, C, H, W) with values in [0, 1]; noise may leave that range, as in the papers: it is not clipped.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

LEVELS = 255.0  # sigmas are given in 8-bit levels, as the papers do

Images = Float[Tensor, "B C H W"]
Strength = Float[Tensor, " B"]  # one for each image


def gaussian_noise(y: Images, sigma: float | Strength, generator: torch.Generator) -> Images:
    """Add Gaussian noise of a standard deviation in 8-bit levels, in float and unclipped.

    Source: the protocol of Zhang et al. 2017, "Beyond a Gaussian denoiser", section IV.A.
    """
    return y + _each(sigma, y) / LEVELS * _normal(y, generator)


def poisson_noise(y: Images, sigma: float | Strength, generator: torch.Generator) -> Images:
    """Photon noise: its variance grows with the brightness, and is sigma^2 (8-bit levels) at middle grey."""
    peak = 0.5 * (LEVELS / _each(sigma, y).clamp(min=1e-3)).square()  # photons at white
    photons = torch.poisson((y.clamp(0, 1) * peak).to(generator.device), generator=generator)
    return photons.to(y.device) / peak


def speckle(y: Images, sigma: float | Strength, generator: torch.Generator) -> Images:
    """Noise in proportion to the brightness, of standard deviation sigma (8-bit levels) at middle grey."""
    return y + 2 * y * _each(sigma, y) / LEVELS * _normal(y, generator)


def jpeg(y: Images, quality: int, sampling: str = "4:2:0") -> Images:
    """Write as JPEG and read again; one or three channels, chroma at a size that `sampling` says."""
    pixels = (y.clamp(0, 1) * LEVELS).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for each in pixels:
        buffer = io.BytesIO()
        Image.fromarray(each[..., 0] if each.shape[2] == 1 else each).save(
            buffer, "jpeg", quality=quality, subsampling=sampling
        )
        read.append(np.asarray(Image.open(buffer)).reshape(each.shape))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(y) / LEVELS


def jpeg_within(y: Images, quality: int, corner: tuple[int, int], sampling: str = "4:2:0") -> Images:
    """Write as a part of a larger JPEG, whose blocks begin so many rows above and columns to the left; read the part.

    JPEG's blocks begin at the corner of a file, but pictures are cropped after they have been saved.
    """
    down, right = corner
    whole = F.pad(y, (right, 0, down, 0), mode="replicate")
    return jpeg(whole, quality, sampling)[:, :, down:, right:]


def smaller(y: Images, scale: int) -> Images:
    """Bicubic and antialiased, as Pillow and Matlab do it, rounded to 8 bits; sides are multiples of the scale."""
    size = (y.shape[2] // scale, y.shape[3] // scale)
    return (resized(y, size).clamp(0, 1) * LEVELS).round() / LEVELS


def resized(y: Images, size: Sequence[int]) -> Images:
    """Bicubic and antialiased, in float, to (height, width)."""
    return F.interpolate(y, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def as_files(c: Images, levels: float) -> Images:
    """What a file can hold of a damaged image: clipped to the range of values, and rounded to its levels.

    Args:
        c: Damaged images.
        levels: The largest value of the files: 255 or 65535.
    """
    return (c.clamp(0, 1) * levels).round() / levels


def grain(images: Images) -> Strength:
    """How much of an image is grain finer than its edges: for white noise on a flat one, its standard deviation.

    Source: the mask of Immerkaer 1996, "Fast noise variance estimation", eq. 1, in root mean square.
    """
    mask = images.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    planes = images.flatten(0, 1)[:, None]
    found = F.conv2d(planes, mask[None, None]).square().mean(dim=(1, 2, 3))
    return found.view(images.shape[:2]).mean(dim=1).sqrt()


def _each(value: float | Tensor, y: Tensor) -> Float[Tensor, "B 1 1 1"]:
    each = torch.as_tensor(value, dtype=y.dtype, device=y.device)
    return each.expand(len(y))[:, None, None, None]


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
