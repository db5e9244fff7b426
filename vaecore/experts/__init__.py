"""Experts: densities of frozen features, fitted in closed form, one file each. Anomaly scores are made of their maps.

The linear VAE is the one whose bound is reported; the others add what it does not see.
"""

from vaecore.experts.base import SINGLE_PLACES, WHOLE_PLACES, Batches, Expert, InClosedForm, add
from vaecore.experts.combination import Combination
from vaecore.experts.gaussian import SharedGaussian
from vaecore.experts.linear_vae import ClosedFormLinearVAE, latents_for
from vaecore.experts.memory import Memory
from vaecore.experts.place_gaussian import PlaceGaussian

EXPERTS: dict[str, type[Expert]] = {
    "gaussian": SharedGaussian,
    "place_gaussian": PlaceGaussian,
    "memory": Memory,
}
"""By the name that a job file gives them."""

__all__ = [
    "EXPERTS", "SINGLE_PLACES", "WHOLE_PLACES", "Batches", "ClosedFormLinearVAE", "Combination", "Expert",
    "InClosedForm", "Memory", "PlaceGaussian", "SharedGaussian", "add", "latents_for",
]  # fmt: skip
