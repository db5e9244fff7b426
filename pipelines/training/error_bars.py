"""What held-out images teach a trained network: how wide error bars are, how colourful samples, how sure classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.data.examples import Examples
from pipelines.training.crops.fit_colorizer import FitColorizer
from pipelines.training.crops.fit_segmenter import FitSegmenter
from vaecore.graphs.colorization import colourfulness
from vaecore.likelihoods import Gaussian
from vaecore.networks import ClassPrior

SHARES = (0.5, 0.68, 0.9, 0.95)
REPEATS = 4  # of each image
EXPONENTS = (0.5, 1.5)
KEPT = 4096  # values of each restored crop
MOST_IMAGES = 100
LABELLED_BATCH = 64
EXPECTED = 0.5  # standard deviation of the logarithm of a temperature, before any label is seen


@dataclass(frozen=True, slots=True, eq=False)
class ErrorBars:
    """What makes of the network's scale a standard deviation, and of that an interval.

    Attributes:
        exponent: To which the scale is raised, in shares of the range of values: below one where errors are larger than
            it where it is small, or smaller where it is large.
        factor: (C,) by which that is multiplied: errors of each channel are then one of it, in root mean square.
        intervals: Share of the pixels -> half the width of the interval around the restored value that holds it, in
            those standard deviations. Errors have heavier tails than a Gaussian's, so these are counted.
    """

    exponent: float
    factor: Tensor
    intervals: dict[str, float]


class Restores(Protocol):
    """A training whose network gives images with error bars."""

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:
        """The middle of one image (1, C, H, W) as it is, and p(y|c) of it; the key decides what chance does."""
        ...


@torch.no_grad()
def measure_error_bars(module: Restores, indices: Sequence[int], repeats: int = REPEATS) -> ErrorBars:
    """Compare errors with predicted scales on images that nothing was learned from.

    Args:
        module: The trained network with its images, on the CPU.
        indices: Of held-out images.
        repeats: Of each image: more than one where chance makes each another, as damage does.

    Source: the factor by maximum likelihood as in Levi et al. 2022, "Evaluating and calibrating uncertainty prediction
    in regression tasks", here with an exponent: what is too wide for small errors can be too narrow for large ones.
    """
    from scipy.optimize import minimize_scalar

    errors, scales = [], []
    for number in range(min(len(indices), MOST_IMAGES) * repeats):
        image = indices[number % len(indices)]
        y, predicted = module.restore_middle(image, key=2 * 10**9 + number)
        error, log_scale = ((y - predicted.mean)[0].flatten(1), predicted.stddev.log()[0].flatten(1))
        kept = torch.randperm(error.shape[1], generator=torch.Generator().manual_seed(number))[:KEPT]
        errors.append(error[:, kept])
        scales.append(log_scale[:, kept])
    error, log_scale = torch.cat(errors, dim=1).abs().double(), torch.cat(scales, dim=1).double()

    def ratios(exponent: float) -> tuple[Tensor, Tensor]:
        """Errors in scales that are raised to it, and the factor that is best then."""
        ratio = error * torch.exp(-exponent * log_scale)
        factor = ratio.square().mean(dim=1).sqrt()
        return ratio / factor[:, None], factor

    def negative_log_likelihood(exponent: float) -> float:  # less what does not depend on it
        return float((ratios(exponent)[1].log() + exponent * log_scale.mean(dim=1)).mean())

    exponent = float(minimize_scalar(negative_log_likelihood, bounds=EXPONENTS, method="bounded").x)
    ratio, factor = ratios(exponent)
    ordered = ratio.flatten().sort().values
    intervals = {str(share): float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in SHARES}
    return ErrorBars(exponent, factor.float(), intervals)


@torch.no_grad()
def measure_gain(module: FitColorizer, indices: Sequence[int]) -> float:
    """By what the chroma of samples is multiplied so that they are as colourful as images nothing was learned from.

    Args:
        module: The trained network with its images, on the CPU.
        indices: Of held-out images.

    Returns:
        The ratio of the mean colourfulness, between 1/4 and 4.
    """
    true, made = 0.0, 0.0
    for number, image in enumerate(indices[:MOST_IMAGES]):
        y = module.to_unit(module.middle(image))
        generator = torch.Generator().manual_seed(number)
        noise = torch.randn((1, module.network.latent_channels), generator=generator)
        sample = module.predict(y, noise).mean
        true, made = true + float(colourfulness(y)), made + float(colourfulness(sample.clamp(0, 1)))
    return min(4.0, max(0.25, true / max(made, 1e-6)))


@torch.no_grad()
def measure_temperature(module: FitSegmenter, indices: Sequence[int]) -> float:
    """By what logits are divided so that probabilities are honest on images that nothing was learned from.

    Args:
        module: The trained network with its images, on the CPU.
        indices: Of held-out images.

    Returns:
        The temperature of the smallest negative log-likelihood, between 1/8 and 8.
    """
    logits, labels = [], []
    for number, image in enumerate(indices[:MOST_IMAGES]):
        found, y = module.predict(module.middle(image))
        by_pixel, true = found[0].flatten(1).T, y[0, 0].flatten().long()
        kept = torch.randperm(len(true), generator=torch.Generator().manual_seed(number))[: REPEATS * KEPT]
        logits.append(by_pixel[kept])
        labels.append(true[kept])
    return best_temperature(torch.cat(logits), torch.cat(labels))


@torch.no_grad()
def set_temperature(model: ClassPrior, examples: Examples) -> float:
    """Make a trained network's probabilities of classes honest on held-out images; returns the temperature."""
    indices = np.array(examples.split["select"])
    logits, labels = [], []
    for part in np.array_split(indices, -(-len(indices) // LABELLED_BATCH)):
        logits.append(model.log_label(model.posterior(examples.batch(part))))
        labels.append(examples.labels_of(part))
    model.temperature.fill_(best_temperature(torch.cat(logits), torch.cat(labels)))
    return float(model.temperature)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """By what logits (N, K) are divided so that the labels' (N,) log-likelihood is highest, between 1/8 and 8.

    Expected to be near 1 before any label is seen: a few images that are all told right make nothing certain.

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", section 4.2.
    """
    together = logits.double()

    def of(log_temperature: float) -> float:
        loss = float(torch.nn.functional.cross_entropy(together / np.exp(log_temperature), labels))
        return loss + 0.5 * (log_temperature / EXPECTED) ** 2 / len(labels)

    from scipy.optimize import minimize_scalar

    found_at = minimize_scalar(of, bounds=(-np.log(8), np.log(8)), method="bounded")
    return float(np.exp(found_at.x))
