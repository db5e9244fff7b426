"""Vectors that describe an image of a run: as a whole, and at its most abnormal place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import KintsugiError, ModelError
from pipelines.images import Decoded, ImageFile
from pipelines.models.inner_outputs import FEATURES, add_output
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import ModelFile
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.report.folder import ModelFacts

HIGHEST = 0.01  # share of the places of the features' grid, with the highest values of the map, that are averaged

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What a model says of an image.

    Attributes:
        whole: (E,), the embedding.
        place: (F,), mean of the features at the highest places of the anomaly map; None: the model has no features.
    """

    whole: Floats
    place: Floats | None


class Describer:
    """Describes images by the model of a run."""

    def __init__(self, facts: ModelFacts) -> None:
        """Open the model of a run, on one core of the processor.

        Raises:
            ModelError: It is gone, is another one by now, or has no embeddings.
        """
        model = find_model_of(facts)
        try:
            self._session = Session(model, device="cpu", threads=1, content=add_output(model.read(), FEATURES))
            self._has_features = True
        except ModelError:
            self._session, self._has_features = Session(model, device="cpu", threads=1), False
        if "embedding" not in self._session.metadata.outputs:
            raise ModelError(f"{model.ref} gives no embeddings: train it again")

    def __call__(self, file: ImageFile, sha256: str) -> Description | None:
        """Describe an image; None where it cannot be read, or holds something else than `sha256` says."""
        (image,) = decode_for([file], self._session.metadata)
        if not isinstance(image, Decoded) or image.sha256 != sha256:
            return None
        values = self._session.run_images([image], ("embedding", "anomaly_map"))
        whole, heat = values["embedding"][0], values["anomaly_map"][0]
        place = self._describe_place(image, heat) if self._has_features else None
        fine = np.isfinite(whole).all() and (place is None or np.isfinite(place).all())
        return Description(whole, place) if fine else None

    def _describe_place(self, image: Decoded, heat: Floats) -> Floats:
        """Average the features at the highest places; of a model of windows, in the window around the highest one."""
        pixels, metadata = image.pixels, self._session.metadata
        if metadata.windows_of(*heat.shape) is not None:
            part = tuple(
                slice(start, start + length)
                for start, length in zip(window_at_peak(heat, metadata.size), metadata.size, strict=True)
            )
            pixels, heat = pixels[part], heat[part]
        features = self._session.run_graph(pixels[None], [image.sha256], (FEATURES,))[FEATURES][0]
        return average_highest(features, heat)


def window_at_peak(heat: Floats, size: Sequence[int]) -> tuple[int, int]:
    """Return top and left of the window of a size around the highest value of a map, inside the map.

    >>> window_at_peak(np.eye(1, 20, 19), (1, 8))
    (0, 12)
    """
    peak = np.unravel_index(int(np.argmax(heat)), heat.shape)
    top, left = (
        int(min(max(0, at - length // 2), max(0, side - length)))
        for at, length, side in zip(peak, size, heat.shape, strict=True)
    )
    return top, left


def average_highest(features: Floats, heat: Floats) -> Floats:
    """Average features over the share `HIGHEST` of their places where a map is highest, one place at least.

    Args:
        features: (F, h, w).
        heat: (H, W), the anomaly map of the same image.

    Returns:
        (F,).
    """
    from skimage.transform import resize

    coarse = resize(heat.astype(np.float64), features.shape[1:], anti_aliasing=True).ravel()
    highest = np.argsort(-coarse, kind="stable")[: max(1, int(HIGHEST * len(coarse)))]
    found: Floats = features.reshape(len(features), -1)[:, highest].mean(axis=1)
    return found


def find_model_of(facts: ModelFacts) -> ModelFile:
    """Return the model file of a run.

    Raises:
        ModelError: It is gone, or another one has its name by now.
    """
    refs = [f"{facts.name}/{facts.version}"] if facts.version is not None else []
    problem = "the run does not name it"
    for ref in (*refs, *([facts.ref] if facts.ref else ())):
        try:
            model = find_model(ref)
        except KintsugiError as error:
            problem = str(error)
            continue
        if model.sha256 == facts.sha256:
            return model
        problem = f"{ref} is another file by now"
    raise ModelError(f"the model of the run is not there ({problem}): score the folder again")
