"""Reconstruct: the plain VAE. y is the image or features of it, c is nothing; what it cannot explain is abnormal."""

from vaecore.likelihoods.gaussian import HALF_LEVEL
from vaecore.networks import BottleneckVAE, ConvVAE
from vaecore.scoring import ScoringGraph
from vaecore.tasks.base import Target, Task

TASK = Task(
    summary="Learn what normal images look like and score how unlikely a new one is.",
    targets={
        "features": Target(
            summary="features of a frozen network",
            network=BottleneckVAE,
            likelihoods=("gaussian", "laplace", "shared_gaussian"),
            least_scale=0.05,
            batch=32,
            learning_rate=2e-3,
            steps=(600, 3, 4000),
            # On features the held-out bound turns before the anomaly scores do: they improve to the end.
            patience=None,
            few_images=200,
        ),
        "pixels": Target(
            summary="the image itself",
            network=ConvVAE,
            likelihoods=("gaussian", "shared_gaussian", "laplace", "discretised_logistic", "bernoulli"),
            least_scale=HALF_LEVEL,
            batch=16,
            learning_rate=1e-3,
            steps=(800, 3, 4000),
            patience=6,
        ),
    },
    graph=ScoringGraph,
    scores=True,
)
