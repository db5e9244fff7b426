"""Error bars: what makes of predicted scales the errors that held-out images show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vaecore.likelihoods import Gaussian

SHARES = (0.5, 0.68, 0.9, 0.95)
REPEATS = 4  # of each image
EXPONENTS = (0.5, 1.5)
KEPT = 4096  # values of each restored crop
MOST_IMAGES = 100


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
