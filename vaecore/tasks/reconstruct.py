"""Reconstruct: y is the image or features of it, c is nothing; what the model cannot explain is abnormal."""

from dataclasses import replace

from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods.gaussian import HALF_LEVEL
from vaecore.networks import BottleneckVAE, ConvVAE
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
    longest=(256, 640),
    strides=(4, 8, 16),
    experts=("place_gaussian", "gaussian"),
    deep_strides=(16,),
    few_images=200,
    most_images=4_000,
)

WHOLE = replace(
    FEATURES,
    summary="features of a frozen network, averaged over the whole image",
    likelihoods=("shared_gaussian", "gaussian", "laplace"),
    longest=(128, 256),
    strides=(32,),
    whole=True,
    experts=None,
    deep_strides=(32,),
    most_images=100_000,
)

TASK = Task(
    summary="Learn what normal images look like and score how unlikely a new one is.",
    targets={
        "features": FEATURES,
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
            # One vector for the whole image: a grid of latents copies whatever it is shown.
            options={"latent_grid": False, "latent_channels": 128},
        ),
    },
    graph=ScoringGraph,
)
