"""The temperature that makes a trained network's probabilities of classes honest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.data.examples import Examples
from vaecore.networks import ClassPrior

LABELLED_BATCH = 64
EXPECTED = 0.5  # standard deviation of the logarithm of a temperature, before any label is seen


@torch.no_grad()
def set_temperature(model: ClassPrior, examples: Examples) -> float:
    """Make a trained network's probabilities of classes honest on held-out images; returns the temperature."""
    indices = np.array(examples.split["select"])
    logits, labels = [], []
    for part in np.array_split(indices, -(-len(indices) // LABELLED_BATCH)):
        logits.append(model.log_label(model.posterior(examples.batch(part))))
        labels.append(examples.labels_of(part))
    model.temperature.fill_(fit_temperature(torch.cat(logits), torch.cat(labels)))
    return float(model.temperature)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return what logits (N, K) are divided by so that the labels' (N,) log-likelihood is highest, between 1/8 and 8.

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
