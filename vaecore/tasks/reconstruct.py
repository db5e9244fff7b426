"""Reconstruct: the plain VAE. y is the image or features of it, c is nothing; what it cannot explain is abnormal."""

from dataclasses import replace

from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods.gaussian import HALF_LEVEL
from vaecore.networks import BottleneckVAE, ConvVAE
from vaecore.representations.pooling import Pooling
from vaecore.tasks.base import Target, Task

FEATURES = Target(
    summary="features of a frozen network",
    network=BottleneckVAE,
    likelihoods=("gaussian", "laplace", "shared_gaussian"),
    least_scale=0.05,
    batch=32,
    learning_rate=2e-3,
    steps=(600, 4, 4000),
    # On features the held-out bound turns before the anomaly scores do: they improve to the end.
    patience=None,
    longest=(256, 512),
    # Large defects show best in the mean of all places, small ones in the highest: this loses little on either.
    pooling=Pooling("soft", 2.0),
    strides=(16,),
    smooth="both",
    finer="details",
    few_images=200,
    most_images=100_000,
)

DETAILS = replace(
    FEATURES,
    summary="fine features of a frozen network, whitened",
    # One scale for all: a scale for each place learns to shrug at busy places, where the small marks are.
    likelihoods=("shared_gaussian", "gaussian", "laplace"),
    steps=(300, 1, 2000),
    longest=(256, 640),
    pooling=Pooling("top", 0.003),
    strides=(8, 16),
    smooth=False,
    whiten=True,
    window=16,
    finer=None,
    most_images=20_000,
)

WHOLE = replace(
    FEATURES,
    summary="features of a frozen network, averaged over the whole image",
    likelihoods=("shared_gaussian", "gaussian", "laplace"),
    longest=(128, 256),
    pooling=Pooling(),
    strides=(32,),
    smooth=False,
    whole=True,
    finer=None,
)

TASK = Task(
    summary="Learn what normal images look like and score how unlikely a new one is.",
    targets={
        "features": FEATURES,
        "details": DETAILS,
        "whole": WHOLE,
        "pixels": Target(
            summary="the image itself",
            network=ConvVAE,
            likelihoods=("gaussian", "shared_gaussian", "laplace", "discretised_logistic", "bernoulli"),
            least_scale=HALF_LEVEL,
            batch=16,
            learning_rate=1e-3,
            steps=(800, 3, 4000),
            patience=6,
            longest=(0, 96),
            pooling=Pooling("top", 0.1),
            # One vector for the whole image: a grid of latents copies whatever it is shown.
            options={"latent_grid": False, "latent_channels": 128},
        ),
    },
    graph=ScoringGraph,
)
