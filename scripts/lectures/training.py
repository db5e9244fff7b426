"""Networks for pictures and figures: trained by the product's own steps, and neither exported nor registered."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.examples import Examples, make_examples
from pipelines.data.plan import Plan
from pipelines.data.training_images import TrainingData
from pipelines.images import Failed, find_images
from pipelines.images.write import encode_image
from pipelines.jobfile.job import job_from_document
from pipelines.models.inputs import decode_for
from pipelines.train import prepare
from pipelines.training.fit import fit
from vaecore.bound import GenerativeModel
from vaecore.representations import Representation

log = logging.getLogger(__name__)
BATCH = 500


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, and the images that it was trained on and those that were kept from it."""

    network: GenerativeModel
    data: TrainingData
    examples: Examples
    plan: Plan
    representation: Representation

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Indices of the images that took no part in training, nor in the choice of the weights."""
        return np.array(self.data.split["calibrate"])

    def names(self) -> list[str]:
        """Path of each image below its folder."""
        return [file.relative for file in self.data.files]

    def pictures(self, folder: Path) -> tuple[Tensor, list[str]]:
        """Other images at the working size, in [0, 1], (N, C, h, w), and their paths below their folder."""
        form, found, names = self.plan.image_format, [], []
        for image in decode_for(find_images(folder), form):
            if isinstance(image, Failed):
                log.warning("left out %s: %s", image.file.relative, image.reason)
                continue
            found.append(self.representation.extract(form.to_unit(torch.from_numpy(image.pixels[None]))))
            names.append(image.file.relative)
        return torch.cat(found), names

    @torch.inference_mode()
    def latents_of(self, pictures: Tensor) -> Tensor:
        """Posterior means of pictures in [0, 1], (N, Z, h, w)."""
        y = self.representation.normalise(pictures)
        return torch.cat([self.network.posterior(part).mean for part in y.split(BATCH)])

    @torch.inference_mode()
    def decoded(self, latents: Tensor) -> Tensor:
        """Mean pictures that latents (N, Z, h, w) stand for, (N, C, H, W)."""
        return torch.cat([self.network.decode(part).mean for part in latents.split(BATCH)])

    @torch.inference_mode()
    def posterior_means(self, indices: NDArray[np.int64]) -> Tensor:
        """Of images, in ascending order of their indices, (N, Z)."""
        parts = np.array_split(np.sort(indices), -(-len(indices) // BATCH))
        return torch.cat([self.network.posterior(self.examples.batch(part)).mean.flatten(1) for part in parts])


def job_of(images: Path, model: Mapping[str, Any], train: Mapping[str, Any], held_out: float = 0.1) -> dict[str, Any]:
    """A job that models black-and-white pictures by a latent vector, as the table of a job file."""
    usual = {"target": "pixels", "likelihood": "bernoulli", "latent": "vector", "blocks": 1, "score": "iwae"}
    usual |= {"score": "elbo"} if model.get("prior") == "none" else {}
    return {
        "name": "lecture",
        "task": "reconstruct",
        "data": {"train": str(images)},
        "model": {**usual, **model},
        "train": {"corruption": "none", "patience": 1000, **train},  # the same steps for all
        "calibrate": {"fraction": held_out},
    }


def trained(document: Mapping[str, Any], work: Path) -> Trained:
    """Train what a job says, or go on with it, or read what was trained before.

    Args:
        document: The job, parsed.
        work: Where checkpoints are kept.
    """
    job = job_from_document(dict(document), work / "job.toml")
    prepared = prepare(job)
    examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation)
    key = hashlib.sha256(
        f"{job.model_dump_json(exclude={'path', 'data'})} {prepared.data.digest}".encode()
    ).hexdigest()[:16]
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    fit(prepared.model, examples, prepared.recipe, folder=folder, device="cpu", on_check=lambda _step, _figures: None)
    return Trained(
        cast("GenerativeModel", prepared.model.eval()), prepared.data, examples, prepared.plan, prepared.representation
    )


def write_grey(path: Path, picture: NDArray[np.uint8]) -> None:
    """A grey PNG file, (H, W), folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image("png", picture[:, :, None])[0])
