#!/usr/bin/env python3
r"""Gaps in an autoencoder's latent space: what lies halfway between two images, as a classifier sees it.

    scripts/gaps.py --train mnist/train --test mnist/test --work /tmp/gaps --json gaps.json

Trains a VAE and an autoencoder of the same network, on the same images for as many steps, and a classifier of their
pixels which knows neither of them. The folders hold one sub-folder for each class. Pairs of test images are drawn,
latents between their posterior means decoded, and the classifier asked.

A classifier knows p(class | image), not p(image). What "likelier" means here was chosen before any test image was
looked at: *confidence*, the largest probability that it gives to a class, averaged over pairs. Between two digits there
are images of one digit, of the other, and of nothing; of a picture of nothing, the classifier is not sure. That is
what the inception score (Salimans et al. 2016) asks of one image. Beside it stands the log of the sum of exponentiated
logits, which is log p(image) but for a constant where the classifier is read as an energy-based model (Grathwohl et al.
2020, eq. 7). Reconstructions are the reference: a decoder that blurs lowers these, too. Images that are drawn from a
Gaussian which was fitted to the latents of training images tell how well these fill the space that they are in.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from lectures.training import BATCH, Trained, job_of, trained
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.errors import KintsugiError

log = logging.getLogger("gaps")
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # between the two images; at the ends, their reconstructions
LEARNING_RATE = 1e-3
NAMES = {"standard": "vae", "none": "autoencoder"}
MEASURES = ("confidence", "log_sum_exp")


def classifier_of(pictures: Tensor, labels: Tensor, steps: int, seed: int) -> nn.Module:
    """A small convolutional network, from pictures (N, 1, H, W) in [0, 1] to logits, trained on them alone."""
    torch.manual_seed(seed)
    classes = int(labels.max()) + 1
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip
    network(pictures[:1])
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = torch.randint(len(labels), (128,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(network(pictures[some]), labels[some]).backward()
        optimiser.step()
    return network.eval()


@torch.inference_mode()
def asked(classifier: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of each picture, and the logarithm of the summed exponentials of its logits."""
    logits = torch.cat([classifier(part) for part in pictures.split(BATCH)])
    return logits.softmax(dim=1).max(dim=1).values, logits.logsumexp(dim=1)


def pairs_of(count: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two different images for each pair."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(count, (pairs,), generator=generator)
    other = (first + torch.randint(1, count, (pairs,), generator=generator)) % count
    return first, other


def drawn(one: Trained, count: int) -> Tensor:
    """Latents from a Gaussian with the mean and covariance that latents of training images have, (N, Z, 1, 1)."""
    known = one.posterior_means(np.array(one.data.split["train"])).double()
    root = torch.linalg.cholesky(known.T.cov() + 1e-9 * torch.eye(known.shape[1]))
    noise = torch.randn((count, known.shape[1]), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    latents: Tensor = (known.mean(dim=0) + noise @ root.T).float()
    return latents[:, :, None, None]


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, and measure."""
    models = {prior: model_of(args, prior) for prior in ("standard", "none")}
    vae = models["standard"]
    names = sorted({Path(name).parts[0] for name in vae.names()})
    pixels = vae.plan.image_format.to_unit(torch.from_numpy(np.array(vae.data.pixels)))
    labels = torch.tensor([names.index(Path(name).parts[0]) for name in vae.names()])
    classifier = classifier_of(pixels, labels, args.classifier_steps, seed=1)
    pictures, files = vae.pictures(args.test)
    truth = torch.tensor([names.index(Path(name).parts[0]) for name in files])
    with torch.inference_mode():
        right = torch.cat([classifier(part).argmax(dim=1) for part in pictures.split(BATCH)]) == truth
    found: dict[str, Any] = {"accuracy": float(right.double().mean()), "pairs": args.pairs, "points": {}}
    log.info("the classifier is right about %.2f %% of the test images", 100 * found["accuracy"])
    first, other = pairs_of(len(pictures), args.pairs, seed=0)
    latents = {prior: one.latents_of(pictures) for prior, one in models.items()}
    measured = {}
    for place in PLACES:
        for prior, one in models.items():
            between = torch.lerp(latents[prior][first], latents[prior][other], place)
            measured[prior] = asked(classifier, one.decoded(between))
        found["points"][str(place)] = {
            what: {
                "vae": summary(measured["standard"][index]),
                "autoencoder": summary(measured["none"][index]),
                "difference": summary(measured["standard"][index] - measured["none"][index]),
            }
            for index, what in enumerate(MEASURES)
        }
        told = found["points"][str(place)]["confidence"]
        log.info(
            "at %.2f: confidence %s", place, "; ".join(f"{who} {m:.4f} +- {e:.4f}" for who, (m, e) in told.items())
        )
    found["drawn"] = {}
    for prior, one in models.items():
        told = asked(classifier, one.decoded(drawn(one, args.pairs)))
        found["drawn"][NAMES[prior]] = {what: summary(told[index]) for index, what in enumerate(MEASURES)}
        log.info("drawn, %s: confidence %.4f +- %.4f", NAMES[prior], *found["drawn"][NAMES[prior]]["confidence"])
    found["test_images"] = {"confidence": summary(asked(classifier, pictures)[0])}
    return found


def model_of(args: argparse.Namespace, prior: str) -> Trained:
    """The VAE, or the autoencoder of the same network."""
    model = {"size": [28, 28], "latent_channels": args.latents, "stages": 2, "width": 16, "prior": prior}
    train = {"steps": args.steps, "batch": 128, "learning_rate": 2e-3}
    return trained(job_of(args.train.resolve(), model, train, held_out=0.02), args.work.resolve())


def summary(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="images, a sub-folder for each class")
    parser.add_argument("--test", type=Path, required=True, help="others, in the same layout")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints")
    parser.add_argument("--latents", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parser.parse_args()
    try:
        found = compare(args)
    except KintsugiError as error:
        sys.exit(str(error))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
