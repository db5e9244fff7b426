"""Priors of latents: one file each. A new file with a `PRIOR` is a new value of `model.prior`; nothing else knows."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from vaecore.priors.base import COMPONENTS, Circumstances, PriorKind
from vaecore.priors.mixture import GaussianMixture, MixturePrior
from vaecore.priors.none import Autoencoder
from vaecore.priors.vamp import VampPrior


@cache
def all_priors() -> dict[str, PriorKind]:
    """Every kind by name, the name being the file's."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return {name: importlib.import_module(f"{__name__}.{name}").PRIOR for name in names}


__all__ = [
    "COMPONENTS", "Autoencoder", "Circumstances", "GaussianMixture", "MixturePrior", "PriorKind", "VampPrior",
    "all_priors",
]  # fmt: skip
