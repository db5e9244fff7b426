"""A plain convolutional autoencoder on pixels, with the L2 or the SSIM loss.

Source: Bergmann et al. 2019, "Improving unsupervised defect segmentation by applying structural similarity to
autoencoders", table 1: one vector of 100 numbers between a convolutional encoder and its mirror image. Here it sees the
whole image at the working size, not patches of 128 x 128, and halves it once more where that is large.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.base.files import write_atomically
from pipelines.base.progress import progress
from pipelines.bench.measure import Scored
from pipelines.data.examples import Examples
from pipelines.training.fit import Recipe, shuffled

log = logging.getLogger(__name__)

Loss = Literal["l2", "ssim"]
LATENT = 100
SLOPE = 0.2
WEIGHT_DECAY = 1e-5
WINDOW, SIGMA = 11, 1.5  # of SSIM
LARGE = 192  # pixels of the shorter side, from which on there is a fifth halving


class Autoencoder(nn.Module):
    """Image to a vector and back."""

    def __init__(self, channels: int, size: tuple[int, int], latent: int = LATENT) -> None:
        """Choose the size, a multiple of 16.

        Raises:
            ValueError: It is not.
        """
        super().__init__()
        if size[0] % 16 or size[1] % 16:
            msg = f"the autoencoder halves the image four times: {size[0]} x {size[1]} is not a multiple of 16"
            raise ValueError(msg)
        fifth = [(32, 4, 2)] if min(size) >= LARGE and not (size[0] % 32 or size[1] % 32) else []
        # Channels, kernel and stride, as in the paper's table.
        layers = [
            (32, 4, 2),
            *fifth,
            (32, 4, 2),
            (32, 3, 1),
            (64, 4, 2),
            (64, 3, 1),
            (128, 4, 2),
            (64, 3, 1),
            (32, 3, 1),
        ]
        stride = 32 if fifth else 16
        grid = (size[0] // stride, size[1] // stride)
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        width = channels
        for out, kernel, step in layers:
            encoder += [nn.Conv2d(width, out, kernel, step, padding=1), nn.LeakyReLU(SLOPE)]
            mirrored = nn.ConvTranspose2d(out, width, kernel, step, padding=1)
            decoder = [mirrored, nn.LeakyReLU(SLOPE), *decoder]
            width = out
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(width, latent, grid))
        # The last layer gives the image: no bend after it.
        self.decoder = nn.Sequential(nn.ConvTranspose2d(latent, width, grid), nn.LeakyReLU(SLOPE), *decoder[:-1])

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct (B, C, H, W)."""
        reconstructed: Tensor = self.decoder(self.encoder(image))
        return reconstructed


def residual(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """What two images (B, C, H, W) differ by at each pixel, (B, H, W): what is minimised, and what is shown."""
    if loss == "l2":
        return lambda image, other: (image - other).square().mean(dim=1)
    return lambda image, other: 1 - ssim(image, other).mean(dim=1)


def ssim(image: Tensor, other: Tensor) -> Tensor:
    """Structural similarity at each pixel, of images in [0, 1] with the usual Gaussian window.

    Args:
        image: (B, C, H, W), at least 6 pixels high and wide.
        other: The same shape.

    Returns:
        (B, C, H, W), at most 1.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    """
    place = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    weights = torch.exp(-place.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()

    def mean(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        padded = F.pad(flat, [WINDOW // 2] * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, weights[None, None, :, None]), weights[None, None, None]).view_as(values)

    x, y = mean(image), mean(other)
    variances = mean(image.square()) - x.square() + mean(other.square()) - y.square()
    covariance = mean(image * other) - x * y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * x * y + c1) * (2 * covariance + c2) / ((x.square() + y.square() + c1) * (variances + c2))


class AutoencoderScorer:
    """An image's map is what is lost in reconstruction; it scores as its worst pixel."""

    def __init__(self, model: Autoencoder, loss: Loss) -> None:
        """Keep a trained network."""
        self._model, self._residual = model.eval(), residual(loss)

    def __call__(self, image: Tensor) -> Scored:
        """Score a batch."""
        maps = self._residual(image, self._model(image))
        return Scored(maps.amax(dim=(1, 2)), maps)


def train_autoencoder(examples: Examples, recipe: Recipe, loss: Loss, device: str) -> Autoencoder:
    """Train on the train split, as many steps as the pixel VAE is given, with Adam under a one-cycle schedule.

    Args:
        examples: Images in [0, 1].
        recipe: Steps, batch, learning rate and seed.
        loss: What is minimised.
        device: "cpu" or "cuda".
    """
    torch.manual_seed(recipe.seed)
    images = np.array(examples.split["train"])
    channels, height, width = examples.batch(images[:1]).shape[1:]
    model = Autoencoder(channels, (height, width)).to(memory_format=torch.channels_last).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=recipe.steps + 1, pct_start=0.1
    )
    difference = residual(loss)
    with progress(log, "train", recipe.steps, "steps") as advance:
        for indices in shuffled(images, recipe, recipe.steps, 0):
            image = examples.batch(indices).to(device, memory_format=torch.channels_last)
            value = difference(image, model(image)).mean()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            advance(1, f"loss {value.item():.5f}")
    return model


def load_autoencoder(path: Path, channels: int, size: tuple[int, int], device: str) -> Autoencoder:
    """One that was kept."""
    model = Autoencoder(channels, size).to(device)
    model.load_state_dict(load_file(path))
    return model


def save_autoencoder(path: Path, model: Autoencoder) -> None:
    """Keep one for the other half of the test images."""
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))
