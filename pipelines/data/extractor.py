"""The frozen part of a scoring graph, exported once for all trainings, which also makes their features."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import version as installed_version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipelines.base.concurrency import in_order
from pipelines.base.files import write_atomically
from pipelines.base.locks import locked
from pipelines.base.software import DISTRIBUTION
from pipelines.errors import ModelError
from pipelines.models.providers import CPU, choose_providers
from pipelines.settings import settings
from vaecore.graphs.export import export_extractor
from vaecore.representations import Features
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)
GPU_BATCH = 64
VERSIONS = (DISTRIBUTION, "torch", "onnx", "onnxscript", "timm")  # what the exported graph depends on


def find_extractor(features: Features, image_format: ImageFormat) -> Path:
    """The exported extractor of some features, made if this home has none yet.

    Args:
        features: Their backbone, strides and working size.
        image_format: Of the images.
    """
    stamp: list[Any] = [features.backbone.digest(), features.input_size, features.standardises, features.whole]
    stamp += [image_format.channels, image_format.bit_depth, *(installed_version(name) for name in VERSIONS)]
    folder = settings().home / "cache" / "extractors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(repr(stamp).encode()).hexdigest()[:24]}.onnx"
    with locked(folder / "lock"):
        if not path.is_file():
            log.info("exporting the frozen network, once for this size and kind of images")
            write_atomically(path, lambda temporary: export_extractor(features, image_format, temporary))
    return path


class Extractor:
    """Makes features of images, by ONNX Runtime: on a processor several times faster than torch."""

    def __init__(self, path: Path) -> None:
        """Open an exported extractor, where the settings say."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = choose_providers(settings().device)
        # As scoring does it: one image a call, as many calls at a time as there are cores.
        self.workers = settings().workers if providers == [CPU] else 1
        self._batch = 1 if providers == [CPU] else GPU_BATCH
        options.intra_op_num_threads = 1 if providers == [CPU] else 0
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float16]:
        """Features (N, D, h, w) of images (N, H, W, C) of equal size, in half precision.

        Raises:
            ModelError: Half precision cannot hold them.
        """
        found: NDArray[np.float32] = self._session.run(None, {"image": np.ascontiguousarray(pixels)})[0]
        largest = float(np.abs(found).max())
        if not largest <= np.finfo(np.float16).max:
            raise ModelError(
                f"the backbone gives features of up to {largest:.3g}, and half precision ends at 65,504: choose other "
                "'model.layers' or 'model.strides', or another backbone"
            )
        return found.astype(np.float16)

    def batches(self, images: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.float16]]:
        """Features of many images of equal size, in their order, a few at a time."""
        waiting = iter(images)
        parts = iter(lambda: list(islice(waiting, self._batch)), [])
        yield from in_order(self, (np.stack(part) for part in parts), workers=self.workers)
