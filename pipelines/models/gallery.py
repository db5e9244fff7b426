"""The good images that an image is most like, by the gallery in the model's bundle.

Distances are taken between posterior means, each latent dimension in units of its spread over the gallery.

Belongs to the scoring side: numpy, safetensors and Pillow only.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

from pipelines.errors import ModelError
from pipelines.models.model_file import GALLERY_FILE, ModelFile

CLOSEST = 3
_FLOOR = 0.01  # of the widest dimension's spread: a dimension that the model does not use must not become a measure


class Neighbour(NamedTuple):
    """A good image, and how far from it another one is."""

    name: str
    distance: float  # root mean square over latent dimensions, in standard deviations over the gallery
    thumbnail: bytes  # JPEG

    def row(self) -> dict[str, object]:
        """As a value of the column `neighbours`."""
        return self._asdict()


def measure_spread(vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (E,) of vectors (N, E) and their standard deviation (E,), which is never zero."""
    vectors = np.asarray(vectors, np.float64)
    centre, spread = vectors.mean(axis=0), vectors.std(axis=0)
    spread = np.maximum(spread, _FLOOR * spread.max())
    spread[spread == 0] = 1.0  # one vector, or all alike
    return centre, spread


def rank_closest(
    codes: NDArray[np.float64], code: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which rows of `codes` (N, E) are closest to `code` (E,), closest first, and their distances.

    Distances are root mean squares over dimensions, in the unit of the codes. At most `count` rows are returned.
    """
    distances = np.sqrt(np.mean((codes - code) ** 2, axis=1))
    order = np.argsort(distances, kind="stable")[:count]
    return order, distances[order]


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Good images of the training set: names, latent codes and thumbnails.

    Attributes:
        names: Of the files, below the training folder.
        centre: (E,), mean of the posterior means.
        spread: (E,), their standard deviation.
        codes: (N, E), posterior means in these units.
        thumbnails: (N, S, S, 3), each picture in the upper left corner of its square.
        sizes: (N, 2), height and width of each picture within its square.
    """

    names: tuple[str, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    codes: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, model: ModelFile) -> Self | None:
        """Read the gallery beside a model file; None where there is none, as beside a file that was copied alone.

        Raises:
            ModelError: It is damaged, or belongs to another model file.
        """
        path = model.folder / GALLERY_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return cls._from(model, facts, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path} is not a gallery of good images ({error}): fetch the model again, or delete the file to score "
                "without a comparison to good images"
            ) from error

    @classmethod
    def _from(cls, model: ModelFile, facts: dict[str, str], tensors: dict[str, NDArray[Any]]) -> Self:
        if (owner := facts.get("model_sha256", model.sha256)) != model.sha256:
            raise ValueError(f"it belongs to the model file {owner[:12]}, not to {model.sha256[:12]}")
        names, thumbnails = json.loads(facts["names"]), tensors["thumbnail"]
        with np.errstate(invalid="ignore"):  # numpy warns of some kinds of NaN, which are refused below
            embedding = tensors["embedding"].reshape(len(names), -1).astype(np.float64)
        side = thumbnails.shape[1:3]
        sizes = tensors.get("thumbnail_size", np.broadcast_to(side, (len(names), 2)))  # older ones fill their square
        if not names or not len(names) == len(thumbnails) == len(sizes):
            raise ValueError(f"{len(names)} names, {len(thumbnails)} thumbnails, {len(sizes)} sizes")
        fit = sizes.shape[1:] == (2,) and (sizes >= 1).all() and (sizes <= side).all()
        if thumbnails.dtype != np.uint8 or thumbnails.shape[3:] != (3,) or not fit or not np.isfinite(embedding).all():
            raise ValueError("its pictures or codes are not those of images")
        centre, spread = measure_spread(embedding)
        codes = (embedding - centre) / spread
        return cls(tuple(map(str, names)), centre, spread, codes, thumbnails, sizes.astype(np.int64))

    def closest(self, embedding: NDArray[np.floating[Any]], count: int = CLOSEST) -> list[Neighbour]:
        """The good images whose posterior mean is closest, closest first.

        Args:
            embedding: (E,), posterior mean of an image.
            count: How many, at most.
        """
        code = (np.asarray(embedding, np.float64).ravel() - self.centre) / self.spread
        order, distances = rank_closest(self.codes, code, count)
        return [
            Neighbour(self.names[i], float(distance), self.thumbnail(int(i)))
            for i, distance in zip(order, distances, strict=True)
        ]

    def thumbnail(self, index: int) -> bytes:
        """A picture of the gallery as JPEG, in the image's aspect ratio."""
        height, width = self.sizes[index]
        buffer = io.BytesIO()
        Image.fromarray(self.thumbnails[index, :height, :width]).save(buffer, format="JPEG", quality=88)
        return buffer.getvalue()
