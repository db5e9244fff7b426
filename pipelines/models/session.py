"""One model, ready to run: ONNX Runtime behind the contract of the model file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError

from pipelines.base.concurrency import in_order
from pipelines.base.cores import usable_cores
from pipelines.base.safe_text import one_line
from pipelines.errors import ModelError
from pipelines.images import Decoded
from pipelines.images.windows import Windows
from pipelines.models.model_file import (
    METADATA_KEY,
    ColorizationMetadata,
    CommonMetadata,
    Metadata,
    ModelFile,
    RestorationMetadata,
    SegmentationMetadata,
)
from pipelines.models.providers import CPU, CUDA, choose_providers
from pipelines.models.windows import pooled
from pipelines.settings import settings

Stored = TypeVar("Stored", bound=CommonMetadata)

DOES: dict[type[CommonMetadata], str] = {
    Metadata: "gives anomaly scores",
    RestorationMetadata: "restores images",
    SegmentationMetadata: "labels pixels",
    ColorizationMetadata: "colours grey images",
}
SCORES = ("score", "elbo", "rate", "distortion", "anomaly_map")
MENDED = ("restored", "restored_scale")
Floats = NDArray[np.float32]


class _Loaded(Generic[Stored]):
    """A model file in ONNX Runtime."""

    kind: ClassVar[type[CommonMetadata]]
    metadata: Stored

    def __init__(
        self,
        model: ModelFile,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 0,
        calls: int = 1,
        content: bytes | None = None,
    ) -> None:
        """Load a model file.

        On a CPU, as many calls at a time as there are cores, each on one thread, take three quarters of the time that
        one call after the other on all cores takes.

        Args:
            model: The file.
            device: Where to run; "auto" takes a GPU when one really loads.
            threads: Of each call, on a CPU; 0 means one for each core that this process may use.
            calls: Most calls of `run` at the same time, on a CPU; further ones wait.
            content: The bytes of the file, where it is on another machine.

        Raises:
            ModelError: The file is damaged, was not exported by this software, or does something else.
        """
        self.model = model
        session = _open(model, device, threads, content)
        self._session: onnxruntime.InferenceSession | None = session
        self.provider: str = session.get_providers()[0]
        self.calls = 1 if self.provider == CUDA else calls
        self._turns = threading.Semaphore(self.calls)
        self._only_needed = onnxruntime.RunOptions()
        self._only_needed.only_execute_path_to_fetches = True
        self.metadata = _read_metadata(session, model, self.kind)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        """Sent to another machine, it carries the file along and takes what that machine has."""
        return _reopened, (type(self), self.model, self.model.read())

    def close(self) -> None:
        """Give back the memory of the network; what is known of the model stays."""
        self._session = None

    def _run(self, outputs: Sequence[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if self._session is None:
            raise ValueError("this session was closed")
        with self._turns, _memory_errors():
            values: list[NDArray[Any]] = self._session.run(list(outputs), feeds, self._only_needed)
            return values


class Session(_Loaded[Metadata]):
    """A loaded model that scores batches of equal-sized images; the same image and digest give the same numbers."""

    kind = Metadata

    @property
    def batch_size(self) -> int:
        """Images to run at once: one on a CPU, where batching gains nothing, and of a model of windows."""
        return self._graph_batch if self.metadata.window_overlap is None else 1

    @property
    def _graph_batch(self) -> int:
        return 32 if self.provider == CUDA else 1

    def run(
        self, pixels: NDArray[Any], digests: Sequence[str], outputs: Sequence[str] = SCORES
    ) -> dict[str, NDArray[Any]]:
        """Score a batch: each image as a whole, or in windows that are pooled (`pipelines.models.windows`).

        Args:
            pixels: (N, H, W, C), as `pipelines.models.inputs` decodes them for `metadata`.
            digests: sha256 of each image's file, the key of its sampling noise.
            outputs: Names from the metadata; only what these need is computed.

        Returns:
            The outputs by name, each with N first.

        Raises:
            MemoryError: The batch does not fit.
        """
        windows = self.metadata.windows_of(*pixels.shape[1:3])
        if windows is None:
            return self.run_graph(pixels, digests, outputs)
        found = [self._run_windows(windows, *each, outputs) for each in zip(pixels, digests, strict=True)]
        return {name: np.stack([values[name] for values in found]) for name in outputs}

    def _run_windows(
        self, windows: Windows, image: NDArray[Any], digest: str, outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """One image, a few windows at a time: no more of them are held than are under way."""

        def run(part: NDArray[Any]) -> dict[str, NDArray[Any]]:
            return self.run_graph(part, [digest] * len(part), needed)

        needed = tuple(dict.fromkeys(("score", *outputs)))
        parts = windows.cut(image, self._graph_batch)
        return pooled(windows, in_order(run, parts, workers=self.calls), outputs)

    def run_graph(
        self, pixels: NDArray[Any], digests: Sequence[str], outputs: Sequence[str] = SCORES
    ) -> dict[str, NDArray[Any]]:
        """Run the graph alone, which resizes what it is given: images or windows. See `run`."""
        shape = (self.metadata.samples, *self.metadata.latent_shape)
        noise = np.stack([keyed_noise(digest, shape) for digest in digests])
        return dict(zip(outputs, self._run(outputs, {"image": pixels, "noise": noise}), strict=True))

    def run_images(self, images: Sequence[Decoded], outputs: Sequence[str] = SCORES) -> dict[str, NDArray[Any]]:
        """Score images of equal shape, decoded for this model. See `run`."""
        pixels = np.stack([image.pixels for image in images])
        return self.run(pixels, [image.sha256 for image in images], outputs)


class RestoringSession(_Loaded[RestorationMetadata]):
    """A loaded model that restores images, one tile at a time."""

    kind = RestorationMetadata

    def run(self, tile: Floats) -> tuple[Floats, Floats]:
        """Mend a tile.

        Args:
            tile: (N, H, W, C), values divided by the largest of their type; sides in multiples of `size_multiple`.

        Returns:
            What it shows, and the standard deviation of each value, both at `scale` times the size.

        Raises:
            MemoryError: The tile does not fit: use a smaller one.
        """
        restored, scale = self._run(MENDED, {"image": tile})
        return restored, scale


class SegmentingSession(_Loaded[SegmentationMetadata]):
    """A loaded model that labels pixels, a tile at a time."""

    kind = SegmentationMetadata

    def cells(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the noise of an image."""
        step = self.metadata.size_multiple
        return -(-height // step), -(-width // step), self.metadata.latent_channels

    def run(self, tile: Floats, noise: Floats | None = None) -> tuple[Floats, Floats]:
        """Label a tile.

        Args:
            tile: (N, H, W, C), values divided by the largest of their type; sides in multiples of `size_multiple`.
            noise: (N, *cells) standard normal numbers: another noise is another sample. None: the mean of the latents.

        Returns:
            Probabilities of the classes, (N, H, W, K), and the standard deviations of their indicators.

        Raises:
            MemoryError: The tile does not fit: use a smaller one.
        """
        if noise is None:
            noise = np.zeros((len(tile), *self.cells(*tile.shape[1:3])), np.float32)
        restored, scale = self._run(MENDED, {"image": tile, "noise": noise})
        return restored, scale


class ColorizingSession(_Loaded[ColorizationMetadata]):
    """A loaded model that colours grey images."""

    kind = ColorizationMetadata

    def run(self, luma: Floats, noise: Floats | None = None) -> tuple[Floats, Floats]:
        """Colour images of any size.

        Args:
            luma: (N, H, W, 1), values divided by the largest of their type.
            noise: (N, latents) standard normal numbers: another noise is another sample. None: the mean of the latents.

        Returns:
            Red, green and blue, (N, H, W, 3), and the standard deviation of each value.

        Raises:
            MemoryError: They do not fit.
        """
        if noise is None:
            noise = np.zeros((len(luma), self.metadata.latents), np.float32)
        restored, scale = self._run(MENDED, {"image": luma, "noise": noise})
        return restored, scale


AnyRestoring = RestoringSession | SegmentingSession | ColorizingSession
Opened = TypeVar("Opened", bound=_Loaded[Any])


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """ONNX Runtime has a dozen words for it."""
    try:
        yield
    except Exception as error:
        if "memory" in str(error).lower() or "bad_alloc" in str(error):
            raise MemoryError from error
        raise


def kind_of(model: ModelFile) -> type[CommonMetadata]:
    """The kind of metadata that a model has, which says what it does (`DOES`).

    Raises:
        ModelError: It is no model of ONNX Runtime's.
    """
    return _kind_of(_open(model, "cpu", 1))


def open_restoring_session(
    model: ModelFile, *, device: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 0, calls: int = 1
) -> AnyRestoring:
    """Load a model that restores, labels or colours images; see the class for its kind.

    Raises:
        ModelError: It does nothing of the kind, or is damaged.
    """
    kinds: dict[type[CommonMetadata], type[AnyRestoring]] = {
        SegmentationMetadata: SegmentingSession,
        ColorizationMetadata: ColorizingSession,
    }
    return kinds.get(kind_of(model), RestoringSession)(model, device=device, threads=threads, calls=calls)


def _reopened(kind: type[Opened], model: ModelFile, content: bytes) -> Opened:
    return kind(model, device=settings().device, threads=1, calls=settings().workers, content=content)


def _open(
    model: ModelFile, device: Literal["auto", "cpu", "cuda"], threads: int, content: bytes | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()  # its own count ignores the limit of a container
    # Threads that wait by spinning hold cores that the others need: beside other work a call took twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        content = model.read() if content is None else content
        providers = choose_providers(device)
        options.use_deterministic_compute = providers != [CPU]  # CUDA adds up in another order each time otherwise
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a dozen private classes
        msg = f"{model.path} is not a model that ONNX Runtime can load: {one_line(error) or type(error).__name__}"
        raise ModelError(msg) from None


def _kind_of(session: onnxruntime.InferenceSession) -> type[CommonMetadata]:
    if "score" in {output.name for output in session.get_outputs()}:
        return Metadata
    noise = {each.name: each.shape for each in session.get_inputs()}.get("noise", [])
    by_axes: dict[int, type[CommonMetadata]] = {4: SegmentationMetadata, 2: ColorizationMetadata}
    return by_axes.get(len(noise), RestorationMetadata)


def keyed_noise(digest: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise that is a function of a file's content alone, so that scores repeat.

    Args:
        digest: sha256 in hexadecimal.
        shape: Of the result.
    """
    return keyed_generator(digest).standard_normal(shape, dtype=np.float32)


def keyed_generator(digest: str) -> np.random.Generator:
    """Random numbers that are a function of a file's sha256 alone."""
    return np.random.Generator(np.random.Philox(key=int(digest[:32], 16)))


def _read_metadata(session: onnxruntime.InferenceSession, model: ModelFile, kind: type[CommonMetadata]) -> Any:  # noqa: ANN401
    try:
        stored, does = session.get_modelmeta().custom_metadata_map, _kind_of(session)
    except UnicodeDecodeError as error:
        msg = f"{model.path}: its metadata is not text ({error.reason}): the file is damaged, fetch it again"
        raise ModelError(msg) from None
    if METADATA_KEY not in stored:
        msg = f"{model.path} was not exported by Kintsugi: it has no '{METADATA_KEY}' metadata; see `kintsugi train`"
        raise ModelError(msg)
    if does is not kind:
        msg = f"{model.ref} {DOES[does]}: use `kintsugi {'score' if does is Metadata else 'restore'}`"
        raise ModelError(msg)
    try:
        return kind.model_validate_json(stored[METADATA_KEY])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        msg = f"{model.path}: its metadata field '{where}' is not supported ({problem['msg']}); upgrade kintsugi"
        raise ModelError(msg) from None
