"""A prior that is found after training: a mixture of Gaussians, fitted by EM to the latents of the images."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import nn

from pipelines.errors import DataError
from pipelines.examples import STATISTICS_BATCH, Examples
from pipelines.job import Job
from vaecore.bound import LatentVariableModel
from vaecore.networks import MixturePrior
from vaecore.networks.mixture_prior import COMPONENTS

log = logging.getLogger(__name__)
MOST_LATENTS = 100_000  # cells of the grid, of all images: EM goes through them a hundred times
MOST_IMAGES = 20_000
LEAST_VARIANCE = 1e-4


@torch.no_grad()
def with_fitted_prior(network: LatentVariableModel, examples: Examples, job: Job) -> MixturePrior:
    """Give a trained network the mixture that fits its latents best.

    What the bound gains by another prior is E_q(z)[log p(z)], q(z) being the mean of all posteriors: so samples of the
    posteriors are fitted, not their means.

    Args:
        network: Trained under a standard normal prior.
        examples: y of the images.
        job: Says how many components, and the seed.

    Raises:
        DataError: There are fewer latents than components.

    Source: Dempster, Laird, Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm"; Hoffman and
    Johnson 2016, "ELBO surgery", for the gain.
    """
    from sklearn.mixture import GaussianMixture

    components = job.model.components or COMPONENTS
    generator = torch.Generator().manual_seed(job.train.seed)
    drawn = []
    for y in examples.batches("train", STATISTICS_BATCH, MOST_IMAGES):
        noise = torch.randn((len(y), 1, *network.latent_shape), generator=generator)
        drawn.append(network.posterior(y).sample(noise)[:, 0].movedim(1, -1).flatten(0, 2).numpy())
    latents = np.concatenate(drawn)
    if len(latents) < components:
        msg = f"{len(latents)} latents of the training images are too few for {components} components: add images, or "
        raise DataError(f"{msg}lower 'model.components'")
    latents = np.random.default_rng(job.train.seed).permutation(latents)[:MOST_LATENTS].astype(np.float64)
    fitted = GaussianMixture(
        components, covariance_type="diag", reg_covar=LEAST_VARIANCE, random_state=job.train.seed, max_iter=200
    ).fit(latents)
    log.info(
        "fitted a mixture of %d Gaussians to %d latents: %d rounds of EM", components, len(latents), fitted.n_iter_
    )
    assert isinstance(network, nn.Module)  # noqa: S101 - for the type checker
    mixture = MixturePrior(network, components)
    mixture.logits.copy_(torch.from_numpy(np.log(fitted.weights_)))
    mixture.mean.copy_(torch.from_numpy(fitted.means_))
    mixture.log_scale.copy_(torch.from_numpy(0.5 * np.log(fitted.covariances_)))
    return mixture
