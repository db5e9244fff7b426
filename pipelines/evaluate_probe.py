"""What a model's latents know of classes that nobody told it: a linear classifier on a few labelled images' latents.

The figure that self-supervised and unsupervised models are compared by, beside the same classifier on raw pixels and
on as many principal components.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegressionCV

from pipelines.classes import classes_of
from pipelines.errors import DataError
from pipelines.files import write_json
from pipelines.images import Failed, find_images
from pipelines.inputs import decode_for
from pipelines.modelfile import ModelFile
from pipelines.progress import progress
from pipelines.session import Session
from pipelines.settings import settings
from vaecore.image_format import resize

log = logging.getLogger(__name__)
FOLDS = 5
FEWEST_TESTED = 10
MOST_PIXELS = 32  # along the longest side of the raw images that are compared with


def evaluate_probe(
    folder: Path, file: ModelFile, labelled: int, *, json_path: Path | None = None, repeats: int = 5
) -> dict[str, Any]:
    """Accuracy of a linear classifier on the posterior means of a few labelled images. Needs torch and scikit-learn.

    Args:
        folder: Images in sub-folders, each of which is a class. The classifier learns from some of them and is measured
            on all others: none should be among those that the model was trained on.
        file: A model that scores.
        labelled: How many images the classifier learns from; drawn anew for each repeat.
        json_path: Where to write the figures.
        repeats: Draws.

    Returns:
        `probe`: for "latents", "pca" (as many principal components of all these images) and "pixels": `accuracy`, the
        mean over the repeats, and `spread`, their standard deviation; `latents`, `labelled`, `n_images`, `n_failed`,
        `classes`.

    Raises:
        FolderError: There are no images.
        DataError: Fewer than two classes, or too few images beside the labelled ones.

    Source: Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes". Regularised by
    cross-validation on the labelled images, each kind for itself.
    """
    files = find_images(folder)
    names, labels = classes_of(files, folder)
    latents, pixels, kept = _collect(files, Session(file, device=settings().device, threads=settings().workers))
    truth = np.array(labels)[kept]
    if len(truth) < labelled + FEWEST_TESTED:
        msg = f"{len(truth)} readable images are too few to learn from {labelled} and to measure on the rest"
        raise DataError(f"{msg}: ask for fewer")
    components = PCA(min(latents.shape[1], *pixels.shape), random_state=0).fit_transform(pixels)
    kinds = {"latents": latents, "pca": components, "pixels": pixels}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    with progress(log, "probe", repeats * len(kinds), "classifiers") as advance:
        for repeat in range(repeats):
            order = np.random.default_rng(repeat).permutation(len(truth))
            learned, tested = order[:labelled], order[labelled:]
            if len(set(truth[learned])) < len(names):
                raise DataError(f"{labelled} labelled images leave out a class of {len(names)}: ask for more")
            for name, values in kinds.items():
                classifier = LogisticRegressionCV(Cs=np.logspace(-3, 2, 6), cv=FOLDS, max_iter=500)
                classifier.fit(values[learned], truth[learned])
                found[name].append(float(classifier.score(values[tested], truth[tested])))
                advance()
    figures = {
        "probe": {
            name: {"accuracy": float(np.mean(each)), "spread": float(np.std(each))} for name, each in found.items()
        },
        "latents": latents.shape[1],
        "labelled": labelled,
        "classes": len(names),
        "n_images": len(truth),
        "n_failed": len(files) - len(truth),
    }
    if json_path is not None:
        write_json(json_path, figures)
    return figures


def describe_probe(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a terminal."""
    yield (
        f"linear classifier of {figures['classes']} classes that learns from {figures['labelled']} of "
        f"{figures['n_images']} images:"
    )
    words = {
        "latents": f"{figures['latents']} latents",
        "pca": "as many principal components",
        "pixels": "pixels",
    }
    for name, block in figures["probe"].items():
        yield f"  {words[name]:28} right {100 * block['accuracy']:.2f} % (+- {100 * block['spread']:.2f})"


def _collect(files: list[Any], session: Session) -> tuple[NDArray[Any], NDArray[Any], list[int]]:
    """Latents (N, Z) and pixels (N, D) of the readable images, and which they are."""
    latents, pixels, kept = [], [], []
    side = min(MOST_PIXELS, max(session.metadata.size))
    with progress(log, "embed", len(files), "images") as advance:
        for number, image in enumerate(decode_for(files, session.metadata)):
            advance()
            if isinstance(image, Failed):
                log.warning("left out %s: %s", image.file.relative, image.reason)
                continue
            latents.append(session.run(image.pixels[None], [image.sha256], ("embedding",))["embedding"][0])
            unit = torch.from_numpy(image.pixels.astype(np.float32)).permute(2, 0, 1)[None]
            pixels.append(resize(unit / session.metadata.value_range[1], (side, side)).flatten().numpy())
            kept.append(number)
    if not kept:
        raise DataError(f"none of {len(files)} images can be read")
    return np.stack(latents), np.stack(pixels), kept
