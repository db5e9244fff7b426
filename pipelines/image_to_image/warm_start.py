"""Weights of a trained model as the beginning of another training: fewer images and minutes do."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from pipelines.data.pieces import with_their_pieces
from pipelines.data.splits import SplitName
from pipelines.errors import JobError
from pipelines.image_to_image.plan import Split
from pipelines.jobfile.job import Job
from pipelines.models.model_file import ModelFile
from pipelines.registry.resolve import find_model
from vaecore.graphs.export import HALF

LEARNED_FROM: dict[SplitName, tuple[SplitName, ...]] = {
    "train": ("select", "calibrate"),
    "degraded": ("degraded_select",),
}

log = logging.getLogger(__name__)
PREFIX = "network."  # of the weights in every graph that is exported


def find_start(job: Job) -> ModelFile | None:
    """Find the model that a job's training begins with, if it names one.

    Raises:
        KintsugiError: There is no such model.
    """
    return None if job.train.start is None else find_model(job.train.start)


def hold_out_unseen(split: Split, digests: Sequence[str], file: ModelFile, pieces: Sequence[str] = ()) -> Split:
    """Return a split whose held-out images the model to begin with never saw: those it saw are trained on again.

    Error bars would else be those of images that the network knows: too narrow.

    Args:
        split: Which images are for what.
        digests: Of the images, as the model's bundle has them.
        file: The model; one that does not tell what it was trained on changes nothing.
        pieces: What each image shows, where that is known: all images of a piece stay together.
    """
    trained_on = file.trained_on  # reads a file
    known = with_their_pieces((index for index, digest in enumerate(digests) if digest in trained_on), pieces)
    apart: Split = {name: tuple(index for index in indices if index not in known) for name, indices in split.items()}
    if not (apart["select"] and apart["calibrate"]):
        log.warning("%s was trained on all images that should be held out: error bars will be too narrow", file.ref)
        return split
    for learned, held in LEARNED_FROM.items():  # what was held out of one kind of image is trained on as that kind
        if learned in split:
            again = {index for name in (learned, *held) for index in split.get(name, ()) if index in known}
            apart[learned] = tuple(sorted({*apart[learned], *again}))
    if "degraded_select" in split and not apart["degraded_select"]:
        apart |= {name: split[name] for name in ("degraded", "degraded_select")}  # no figure rests on these
    return apart


def take_weights(network: nn.Module, file: ModelFile) -> None:
    """Set a network's weights to those of an exported model; what is in no exported file is left as it is.

    That is what only training needs, such as the posterior of a model with latents.

    Raises:
        JobError: The model is of another kind or size.
    """
    import onnx

    stored = {each.name: each for each in onnx.load_from_string(file.read()).graph.initializer}
    own, found = network.state_dict(), dict[str, torch.Tensor]()
    for name, values in own.items():
        kept = stored.get(f"{PREFIX}{name}") or stored.get(f"{PREFIX}{name}{HALF}")
        if kept is not None and tuple(kept.dims) == tuple(values.shape):
            found[name] = torch.from_numpy(onnx.numpy_helper.to_array(kept).copy()).to(values.dtype)
        elif kept is not None:
            msg = (
                f"'train.start' is {file.ref}, whose network is another one: {name} is {list(kept.dims)} there and "
                f"{list(values.shape)} here. 'model.network' (S or M), scale and channels must be the "
                "same (models that ship are of colour images)"
            )
            raise JobError(msg)
    taken, total = (sum(values.numel() for values in each.values()) for each in (found, own))
    if taken < total / 2:
        raise JobError(f"'train.start' is {file.ref}, a model of another kind: give a model of the same task")
    network.load_state_dict(found, strict=False)
    log.info("training begins with %.0f %% of its weights from %s", 100 * taken / total, file.ref)
