"""The bound on log p(y): what it needs of a network, its two terms, and its importance-weighted form.

Beside it: `objectives` (what training may minimise in its place) and `regret` (what a posterior of one image gains).
"""

from vaecore.bound.gaussian import DiagonalGaussian
from vaecore.bound.lower_bound import (
    BoundMaps,
    Elbo,
    attribution,
    bound_from_above,
    bound_maps,
    bound_under,
    elbo,
    iwae,
    sampled_log_prob,
    spread,
    training_loss,
)
from vaecore.bound.model import ExactModel, GenerativeModel, HierarchicalModel, LatentVariableModel, Prior

__all__ = [
    "BoundMaps", "DiagonalGaussian", "Elbo", "ExactModel", "GenerativeModel", "HierarchicalModel",
    "LatentVariableModel", "Prior", "attribution", "bound_from_above", "bound_maps", "bound_under", "elbo", "iwae",
    "objectives", "regret", "sampled_log_prob", "spread", "training_loss",
]  # fmt: skip
