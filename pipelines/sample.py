"""Images that a model makes up: what it thinks that normal looks like."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base.files import make_folders, write_atomically, write_json
from pipelines.base.progress import progress
from pipelines.base.safe_text import printable
from pipelines.batch.output_folder import check_own, check_writable, warn_replaced
from pipelines.data.classes import named
from pipelines.errors import ModelError
from pipelines.images.write import encode_image
from pipelines.models.model_file import Metadata, ModelFile
from pipelines.models.session import DOES, Session, kind_of
from pipelines.registry.resolve import find_model
from pipelines.training.weights import load_network
from vaecore.bound import GenerativeModel
from vaecore.graphs.scoring import ScoringGraph
from vaecore.networks import ClassPrior
from vaecore.priors import Autoencoder

log = logging.getLogger(__name__)
ON_SHEET = 900  # images, at most: it is looked at as a whole
GAP = 2  # pixels between the images of a sheet
SHEET, ACCOUNT = "sheet.png", "samples.json"


def sample_images(model: str | Path, count: int, out: Path, *, seed: int = 0, label: str | None = None) -> Path:
    """Draw latents from the prior, decode them, and write the mean images that they stand for. Needs torch.

    Args:
        model: Reference to a model that scores by its bound on pixels.
        count: How many images.
        out: A folder, new or of an earlier call, whose images go: `0000.png` and so on, as many pixels as the model
            works at, the first 900 of them on `sheet.png`, and `samples.json`, which tells of what model.
        seed: Decides the latents; a larger count begins with the same images.
        label: Of one class, where the model tells classes; default: of all, as often as they were in training.

    Returns:
        The sheet.

    Raises:
        ModelError: It makes no images, has no prior or no such class, or has no weights beside it.
        FolderError: `out` is a file, or holds what no earlier call has written.
    """
    file = find_model(model)
    if (kind := kind_of(file)) is not Metadata:
        raise ModelError(f"{file.ref} {DOES[kind]}: only anomaly models of pixels can draw images")
    graph = load_network(file)
    if not graph.representation.drawable:
        raise ModelError(f'{file.ref} is a model of features: there is no image to show (model.target = "pixels" has)')
    if isinstance(graph.model, Autoencoder):
        raise ModelError(f"{file.ref} is an autoencoder: it has no prior, so likely latents are not known")
    sample = _of_class(file, graph, label) if label is not None else cast("GenerativeModel", graph.model).sample_prior
    _make_room(out, file)
    account = {"model": file.ref, "sha256": file.sha256, "seed": seed, "count": count}
    write_json(out / ACCOUNT, account | ({} if label is None else {"label": label}))
    digits, images = max(4, len(str(count - 1))), []
    with torch.inference_mode(), progress(log, "sample", count, "images") as advance:
        for number in range(count):
            mixed = np.random.SeedSequence((seed, number)).generate_state(1)[0]  # of a seed, torch heeds 32 bits
            generator = torch.Generator().manual_seed(int(mixed))
            mean = graph.network.decode(sample(1, generator)).mean
            image = graph.image_format.from_unit(mean)[0].numpy()
            _write(out / f"{number:0{digits}}.png", image)
            if number < ON_SHEET:
                images.append(image)
            advance()
    _write(out / SHEET, sheet_of(images))
    return out / SHEET


def _of_class(file: ModelFile, graph: ScoringGraph, label: str) -> Callable[[int, torch.Generator], torch.Tensor]:
    """What draws latents of one class.

    Raises:
        ModelError: The model tells no classes, or not this one.
    """
    network, classes = graph.model, Session(file, device="cpu").metadata.classes
    if not isinstance(network, ClassPrior) or label not in classes:
        known = "it tells no classes ('model.classes' in a job)"
        if classes:
            known = f"its classes are {named(classes, len(classes))}"
        raise ModelError(f"{file.ref} has no class '{printable(label)}': {known}")
    number = classes.index(label)
    return lambda count, generator: network.sample_class(torch.full((count,), number), generator)


def sheet_of(images: list[NDArray[np.unsignedinteger[Any]]]) -> NDArray[np.unsignedinteger[Any]]:
    """Images of one size (H, W, C) side by side, about as many across as down, with white between them."""
    across = math.ceil(math.sqrt(len(images)))
    down = math.ceil(len(images) / across)
    height, width, channels = images[0].shape
    white = np.iinfo(images[0].dtype).max
    sheet = np.full((down * (height + GAP) - GAP, across * (width + GAP) - GAP, channels), white, images[0].dtype)
    for number, image in enumerate(images):
        top, left = number // across * (height + GAP), number % across * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _make_room(out: Path, file: ModelFile) -> None:
    """Make the folder, or empty that of an earlier call."""
    check_own(out, ACCOUNT)
    check_writable(out)
    warn_replaced(out / ACCOUNT, file)
    make_folders(out)
    for path in list(out.iterdir()):
        if path.name in (SHEET, ACCOUNT) or re.fullmatch(r"\d{4,}\.png", path.name):
            path.unlink()


def _write(path: Path, pixels: NDArray[np.unsignedinteger[Any]]) -> None:
    data, _ = encode_image("png", pixels)
    write_atomically(path, lambda part: part.write_bytes(data))
