"""A prior that is found after training: a mixture of Gaussians, fitted by EM to the latents of the images."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import LatentVariableModel
from vaecore.priors.base import Circumstances, PriorKind
from vaecore.priors.mixture import MixturePrior

log = logging.getLogger(__name__)
MOST_LATENTS = 100_000  # cells of the grid, of all images: EM goes through them a hundred times
FEWEST_LATENTS = 20  # of each component: where there are fewer, each posterior is sampled more than once
LEAST_VARIANCE = 1e-4


@torch.no_grad()
def with_fitted_prior(
    network: nn.Module, batches: Iterable[Float[Tensor, "B C H W"]], of: Circumstances
) -> MixturePrior:
    """Give a network that was trained under a standard normal prior the mixture that fits its latents best.

    What the bound gains by another prior is E_q(z)[log p(z)], q(z) being the mean of all posteriors: so samples of the
    posteriors are fitted, not their means.

    Args:
        network: Satisfies `LatentVariableModel`.
        batches: y of the training images.
        of: Says how many components, and the seed of samples and of where EM begins.

    Source: Dempster, Laird, Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm"; Hoffman and
    Johnson 2016, "ELBO surgery", for the gain.
    """
    from sklearn.mixture import GaussianMixture

    components, generator = of.components, torch.Generator().manual_seed(of.seed)
    posteriors = [cast("LatentVariableModel", network).posterior(y) for y in batches]
    cells = sum(math.prod((len(q.mean), *q.mean.shape[2:])) for q in posteriors)
    samples = max(1, -(-FEWEST_LATENTS * components // cells))
    drawn = [
        q.sample(torch.randn((len(q.mean), samples, *q.mean.shape[1:]), generator=generator)).movedim(2, -1)
        for q in posteriors
    ]
    latents = torch.cat([z.flatten(0, -2) for z in drawn]).double().numpy()
    latents = np.random.default_rng(of.seed).permutation(latents)[:MOST_LATENTS]
    fitted = GaussianMixture(
        components, covariance_type="diag", reg_covar=LEAST_VARIANCE, random_state=of.seed, max_iter=200
    ).fit(latents)
    log.info("fitted %d Gaussians to %d latents: %d rounds of EM", components, len(latents), fitted.n_iter_)
    mixture = MixturePrior(network, components)
    mixture.logits.copy_(torch.from_numpy(np.log(fitted.weights_)))
    mixture.mean.copy_(torch.from_numpy(fitted.means_))
    mixture.log_scale.copy_(torch.from_numpy(0.5 * np.log(fitted.covariances_)))
    return mixture


PRIOR = PriorKind(
    summary="a mixture of {components} Gaussians, fitted to the latents after training (EM)",
    wrap=lambda network, _: network,
    components=True,
    finish=with_fitted_prior,
    exported=lambda network, of: MixturePrior(network, of.components),
)
