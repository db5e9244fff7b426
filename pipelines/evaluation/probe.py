"""What a model's latents know of classes that nobody told it: a linear classifier on a few labelled images' latents.

The figure that self-supervised and unsupervised models are compared by, beside the same classifier on raw pixels and
on as many principal components.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

from pipelines.base.progress import progress
from pipelines.base.safe_text import printable
from pipelines.base.subsample import evenly_spaced
from pipelines.data.classes import classes_of
from pipelines.errors import DataError
from pipelines.evaluation.evaluated_images import EvaluatedImages
from pipelines.images import Decoded, find_images
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import ModelFile
from pipelines.models.session import Session
from pipelines.settings import settings
from vaecore.representations.image_format import resize

log = logging.getLogger(__name__)
FOLDS, FEWEST_OF_CLASS = 5, 2
FEWEST_TESTED = 10
MOST_IMAGES = 20_000  # labelled and tested ones together: more make no figure better
MOST_PIXELS = 32  # along the longest side of the raw images that are compared with
STRENGTHS = np.logspace(-3, 2, 6)  # of which cross-validation chooses the inverse weight of the penalty


def evaluate_probe(folder: Path, file: ModelFile, labelled: int, *, repeats: int = 5) -> dict[str, Any]:
    """Measure the accuracy of a linear classifier on the embeddings of labelled images. Needs torch and scikit-learn.

    Args:
        folder: Images in sub-folders, each of which is a class. The classifier learns from some of them and is measured
            on all others, of at most 20,000.
        file: A model that scores. Its embedding is the posterior mean, averaged over the grid of latents if it has one.
        labelled: How many images the classifier learns from, drawn anew for each repeat, of each class its share.
        repeats: Draws.

    Returns:
        `probe`: for "latents", "pca" (as many principal components, of all these images, tested ones included, which
        favours them) and "pixels": `accuracy`, the mean over the repeats, and `spread`, their standard deviation;
        `latents`, `labelled`, `classes`, and counts of images.

    Raises:
        FolderError: There are no images.
        DataError: Fewer than two classes, too few images of one, or too few beside the labelled ones.

    Source: Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes". Regularised by
    cross-validation on the labelled images, each kind for itself.
    """
    found_there = find_images(folder)
    files = evenly_spaced(found_there, MOST_IMAGES)
    if len(files) < len(found_there):
        log.info("looking at %d of %d images, evenly spaced", len(files), len(found_there))
    names, labels = classes_of(files, folder)
    label_of = {each.relative: label for each, label in zip(files, labels, strict=True)}
    tested = EvaluatedImages(file, folder, files)
    session = Session(file, device=settings().device, threads=settings().workers)

    def represent(image: Decoded) -> tuple[NDArray[Any], NDArray[Any], int]:
        return _embed(session, image), _shrink(session, image), label_of[image.file.relative]

    rows = tested.measure(decode_for(files, session.metadata), represent, what="embed")
    truth = np.array([label for *_, label in rows])
    if len(truth) < labelled + max(FEWEST_TESTED, len(names)):  # what is drawn holds one of each class
        msg = f"{len(truth)} readable images are too few to learn from {labelled} and to measure on the rest"
        raise DataError(f"{msg}: ask for fewer")
    _check_classes(np.bincount(truth, minlength=len(names)), names, labelled)
    latents, pixels = (np.stack([row[kind] for row in rows]) for kind in (0, 1))
    del rows  # as large as what was stacked from them
    components = PCA(min(latents.shape[1], *pixels.shape), random_state=0).fit_transform(pixels)
    kinds = {"latents": latents, "pca": components, "pixels": pixels}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    with progress(log, "probe", repeats * len(kinds), "classifiers") as advance:
        for repeat in range(repeats):
            learned, rest = train_test_split(
                np.arange(len(truth)), train_size=labelled, stratify=truth, random_state=repeat
            )
            for name, values in kinds.items():
                found[name].append(_accuracy(values, truth, learned, rest))
                advance()
    return {
        "probe": {
            name: {"accuracy": float(np.mean(each)), "spread": float(np.std(each))} for name, each in found.items()
        },
        "latents": latents.shape[1],
        "labelled": labelled,
        "classes": len(names),
        "images_of": dict(zip(names, np.bincount(truth, minlength=len(names)).tolist(), strict=True)),
        **tested.finish(),
    }


def _check_classes(counts: NDArray[np.int64], names: Sequence[str], labelled: int) -> None:
    """Refuse what no stratified draw or cross-validation can be made of.

    Raises:
        DataError: The smallest class has, or would give, fewer than two images to learn from.
    """
    smallest = int(counts.argmin())
    if counts[smallest] < 2 * FEWEST_OF_CLASS:
        msg = (
            f"class {printable(names[smallest])} has {counts[smallest]} readable images, and {2 * FEWEST_OF_CLASS} are"
        )
        raise DataError(f"{msg} needed: add some, or take its sub-folder out")
    needed = -(-FEWEST_OF_CLASS * int(counts.sum()) // int(counts[smallest]))
    if labelled < needed:
        msg = f"{labelled} labelled images would be fewer than {FEWEST_OF_CLASS} of class {printable(names[smallest])}"
        raise DataError(f"{msg}: ask for {needed} or more")


def _accuracy(
    values: NDArray[Any], truth: NDArray[np.int64], learned: NDArray[np.int64], rest: NDArray[np.int64]
) -> float:
    folds = min(FOLDS, int(np.unique(truth[learned], return_counts=True)[1].min()))
    classifier = GridSearchCV(LogisticRegression(max_iter=500), {"C": STRENGTHS}, cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # hardly penalised fits, which are not chosen
        classifier.fit(values[learned], truth[learned])
    return float(classifier.score(values[rest], truth[rest]))


def _embed(session: Session, image: Decoded) -> NDArray[Any]:
    """Return the embedding (Z,) of an image."""
    embedding: NDArray[Any] = session.run(image.pixels[None], [image.sha256], ("embedding",))["embedding"][0]
    return embedding


def _shrink(session: Session, image: Decoded) -> NDArray[Any]:
    """Return an image as a small one's values in a row, (D,)."""
    side = min(MOST_PIXELS, max(session.metadata.size))
    unit = torch.from_numpy(image.pixels.astype(np.float32)).permute(2, 0, 1)[None]
    shrunk: NDArray[Any] = resize(unit / session.metadata.value_range[1], (side, side)).flatten().numpy()
    return shrunk
