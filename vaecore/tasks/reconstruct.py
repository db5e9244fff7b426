"""Reconstruct: the plain VAE. y is the image itself, c is nothing; what it cannot explain is abnormal."""

from vaecore.networks.conv_vae import ConvVAE
from vaecore.scoring import ScoringGraph
from vaecore.tasks.base import Task

TASK = Task(
    summary="Learn what normal images look like and score how unlikely a new one is.",
    network=ConvVAE,
    likelihoods=("gaussian", "shared_gaussian", "laplace", "discretised_logistic", "bernoulli"),
    graph=ScoringGraph,
    outputs={
        "restored": "image levels",
        "restored_scale": "image levels",
        "anomaly_map": "nats per pixel",
        "elbo": "nats",
        "rate": "nats",
        "distortion": "nats",
        "score": "nats per dimension, higher is more abnormal",
        "embedding": "prior standard deviations",
    },
    scores=True,
)
