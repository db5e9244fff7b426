"""What a camera does to a picture: light becomes noisy samples behind a Bayer mosaic, and these a file.

light -> shot and read noise -> mosaic -> demosaicing -> white balance, colours -> gamma -> noise reduction, sharpening

All but the noise is what makes a photograph look as it does, and no damage. So each picture goes through the camera
twice, with noise and without, and the difference is what is added: noise with the grain, colours and contrasts that a
camera gives it, on a picture that is as sharp as before.

Images are (B, 3, H, W) with values in [0, 1], one camera for each. Equal generators give equal damage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

GAMMA = 2.2
SHOT = 0.006  # variance at white, of strength 1: a small sensor at a high sensitivity
READ = 0.00006  # variance of the reading there; that of weaker noise falls with the square of the shot noise
LEAST_LIGHT = 1e-4  # of white: the slope of the gamma curve has no end at black

Colours = Float[Tensor, "B 3 H W"]
Strength = Float[Tensor, " B"]


@dataclass(frozen=True, slots=True, eq=False)
class Cameras:
    """One camera for each picture of a batch, drawn at random.

    Attributes:
        gains: (B, 3, 1, 1) by which white balance multiplies the light of each colour.
        colours: (B, 3, 3) from the sensor's colours to those of the file; rows sum to one, so grey stays grey.
        contrast: (B, 1, 1, 1) share of the S-shaped tone curve.
        corner: (B, 2) row and column of the mosaic's first red sample.
        sharp: (B, 1, 1, 1) how far demosaicing follows edges.
        smooth: (B, 2) noise reduction of luma and chroma: standard deviation in pixels.
        sharpen: (B, 1, 1, 1) amount of unsharp masking.
    """

    gains: Tensor
    colours: Tensor
    contrast: Tensor
    corner: Tensor
    sharp: Tensor
    smooth: Tensor
    sharpen: Tensor


def draw_cameras(count: int, generator: torch.Generator) -> Cameras:
    """Draw cameras, from those that hardly touch a picture to phones.

    Source: ranges of gains after Brooks et al. 2019, "Unprocessing images for learned raw denoising", section 3.
    """
    device = generator.device

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand((count, *shape), generator=generator, device=device)

    gains = draw(3, 1, 1, low=1.2, high=2.4)
    gains[:, 1] = 1.0
    # A sensor's filters let other colours pass: so much of them is taken off again.
    mixed = draw(3, 3) * (1 - torch.eye(3, device=device))
    mixed = mixed / mixed.sum(dim=2, keepdim=True)
    amount = draw(1, 1, low=0.1, high=0.8)
    colours = (1 + amount) * torch.eye(3, device=device) - amount * mixed
    reduced = (draw(1) < 2 / 3).to(gains)  # two cameras of three reduce noise themselves
    smooth = reduced * torch.cat([draw(1, high=0.8), draw(1, high=2.5)], dim=1)
    return Cameras(
        gains=gains,
        colours=colours,
        contrast=draw(1, 1, 1),
        corner=torch.randint(2, (count, 2), generator=generator, device=device),
        sharp=draw(1, 1, 1),
        smooth=smooth,
        sharpen=draw(1, 1, 1).square(),
    )


def camera_noise(y: Colours, strength: Strength, generator: torch.Generator) -> Colours:
    """Add the noise that cameras leave in pictures.

    Args:
        y: Pictures.
        strength: 0 (none) to 1 (`SHOT` and `READ`); the standard deviation of the noise grows with its square, so that
            every other picture has a quarter of the strongest noise or less.
        generator: Chance.
    """
    device = generator.device
    cameras = draw_cameras(len(y), generator)
    light = undevelop(y.to(device), cameras)
    noisy = add_sensor_noise(light, strength.to(device), generator)
    return y + (develop(noisy, cameras) - develop(light, cameras)).to(y)


def undevelop(y: Colours, cameras: Cameras) -> Colours:
    """From pictures to the light that a camera would have made them of.

    Source: Brooks et al. 2019, "Unprocessing images for learned raw denoising", section 3.
    """
    flat = _undo_contrast(y.clamp(0, 1), cameras.contrast)
    light = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(cameras.colours), flat.clamp(min=LEAST_LIGHT) ** GAMMA)
    return (light / cameras.gains).clamp(0, 1)


def add_sensor_noise(light: Colours, strength: Strength, generator: torch.Generator) -> Colours:
    """Add noise of photons, whose variance grows with the light, and of the reading; a sensor ends at its white.

    Source: Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data",
    eq. 5; how much of each as Brooks et al. 2019 find it, section 3.1.
    """
    gain = strength.square().square()[:, None, None, None]
    variance = gain * SHOT * light + gain.square() * READ
    drawn = torch.randn(light.shape, generator=generator, device=generator.device)
    return (light + variance.sqrt() * drawn).clamp(max=1)


def develop(light: Colours, cameras: Cameras) -> Colours:
    """From light to pictures, as a camera makes them."""
    seen = demosaic(light, cameras.corner, cameras.sharp)
    linear = torch.einsum("bij,bjhw->bihw", cameras.colours, seen * cameras.gains)
    # Past its slope at black the curve would make spikes of noise.
    flat = linear.clamp(LEAST_LIGHT, 1) ** (1 / GAMMA)
    picture = _reduce_noise(_add_contrast(flat, cameras.contrast), cameras.smooth)
    return picture + cameras.sharpen * (picture - _blur(picture, torch.ones_like(cameras.smooth[:, 0])))


def demosaic(light: Colours, corner: Int[Tensor, "B 2"], sharp: Float[Tensor, "B 1 1 1"]) -> Colours:
    """Keep the one colour of each pixel that a Bayer mosaic lets pass, and guess the other two.

    Green is the mean of its neighbours, corrected by `sharp` times half the curvature of the pixel's own colour; red
    and blue are green plus the mean difference of their neighbours.

    Source: Malvar, He, Cutler 2004, "High-quality linear interpolation for demosaicing of Bayer-patterned color
    images", eq. 2; differences instead of colours as in Hamilton and Adams 1997 (US patent 5629734, expired).
    """
    masks = _mosaic(light, corner)
    samples = light * masks
    every = samples.sum(dim=1, keepdim=True)
    mean = _filter(samples[:, 1:2], [[0, 1, 0], [1, 0, 1], [0, 1, 0]], 4)
    across = [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, -4, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    guessed = mean - sharp * _filter(every, across, 8)
    green = torch.where(masks[:, 1:2] > 0, every, guessed)
    near = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    red, blue = (green + _filter((every - green) * masks[:, at : at + 1], near, 4) for at in (0, 2))
    return torch.cat([red, green, blue], dim=1)


def _mosaic(light: Tensor, corner: Tensor) -> Tensor:
    """Which pixels see which colour, (B, 3, H, W) of 0 and 1."""
    rows, columns = (torch.arange(length, device=light.device) for length in light.shape[2:])
    down = (rows[None, :, None] + corner[:, :1, None]) % 2
    right = (columns[None, None] + corner[:, 1:, None]) % 2
    red, blue = (down + right) == 0, (down + right) == 2
    return torch.stack([red, down + right == 1, blue], dim=1).to(light)


def _undo_contrast(y: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(y, 0.5 - torch.sin(torch.asin(1 - 2 * y) / 3), share)


def _add_contrast(flat: Tensor, share: Tensor) -> Tensor:
    """The curve of which `_undo_contrast` is the inverse at a share of one, and nearly so between."""
    return torch.lerp(flat, flat.square() * (3 - 2 * flat), share)


def _reduce_noise(picture: Colours, smooth: Float[Tensor, "B 2"]) -> Colours:
    """Blur luma a little and chroma more: what cameras do first about noise."""
    luma = picture.mean(dim=1, keepdim=True)
    return _blur(luma, smooth[:, 0]) + _blur(picture - luma, smooth[:, 1])


def _blur(images: Tensor, deviation: Strength) -> Tensor:
    """Blur each image by its own Gaussian."""
    reach = 5
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernels = torch.exp(-0.5 * (at / deviation[:, None].clamp(min=0.05)).square())
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    batch, channels, height, width = images.shape
    planes = F.pad(images, (reach,) * 4, mode="replicate").reshape(1, batch * channels, height + 2 * reach, -1)
    one = kernels.repeat_interleave(channels, dim=0)
    planes = F.conv2d(planes, one[:, None, :, None], groups=batch * channels)
    return F.conv2d(planes, one[:, None, None, :], groups=batch * channels).reshape(batch, channels, height, width)


def _filter(plane: Float[Tensor, "B 1 H W"], weights: list[list[int]], over: float) -> Tensor:
    kernel = plane.new_tensor(weights)[None, None] / over
    reach = len(weights) // 2
    return F.conv2d(F.pad(plane, (reach,) * 4, mode="reflect"), kernel)
