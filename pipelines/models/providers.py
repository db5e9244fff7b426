"""Which ONNX Runtime providers really load here. Asked once, quietly."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import onnxruntime

from pipelines.errors import ModelError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, str]]  # its name, and its options where it has any
CUDA_OPTIONS = {
    # TF32, the default, rounds each factor to 11 bits: scores would differ from the CPU's by a thousandth.
    "use_tf32": "0",
    # The default measures every algorithm and takes the fastest: another one, with other sums, on another day.
    "cudnn_conv_algo_search": "HEURISTIC",
}
SCORE_TOLERANCE = 1e-4  # largest difference of one image's scores between processors, relative to the score,
SMALLEST_SCORE = 0.1  # or to this, since a score in nats per dimension crosses zero


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether CUDA can be used, and if not, why."""

    cuda: bool
    reason: str


def probe() -> Probe:
    """Try CUDA, once where it works: a GPU that is busy or away may be there for the next model."""
    found = _probe()
    if not found.cuda:
        _probe.cache_clear()
    return found


@cache
def _probe() -> Probe:
    """Try CUDA step by step.

    `get_available_providers()` lists what was compiled in, not what works; asking for CUDA where it does not load
    prints red error lines that frighten people. So: driver, devices, libraries, then a session of one node.
    """
    if CUDA not in onnxruntime.get_available_providers():
        return Probe(cuda=False, reason="this onnxruntime was built without CUDA (install onnxruntime-gpu)")
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Probe(cuda=False, reason="there is no NVIDIA driver (libcuda.so.1)")
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Probe(cuda=False, reason="the NVIDIA driver sees no GPU")
    onnxruntime.set_default_logger_severity(4)
    try:
        onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one node needs no thread of its own
        session = onnxruntime.InferenceSession(_identity_model(), options, providers=[(CUDA, CUDA_OPTIONS), CPU])
        loaded = CUDA in session.get_providers()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong there, the CPU works
        return Probe(cuda=False, reason=f"CUDA does not load: {str(error).splitlines()[0]}")
    finally:
        onnxruntime.set_default_logger_severity(3)
    reason = f"{count.value} GPU(s)" if loaded else "CUDA libraries are missing (pip install nvidia-curand and torch's)"
    return Probe(cuda=loaded, reason=reason)


def choose_providers(device: Literal["auto", "cpu", "cuda"]) -> list[Provider]:
    """Return the providers to ask for, best first. On CUDA the same input gives the same numbers, close to the CPU's.

    Raises:
        ModelError: CUDA was demanded and does not load; the message says why.
    """
    if device == "cpu" or (device == "auto" and not probe().cuda):
        return [CPU]
    if not probe().cuda:
        msg = f"KINTSUGI_DEVICE is cuda, but {probe().reason}; set it to auto or cpu, or see `kintsugi doctor`"
        raise ModelError(msg)
    return [(CUDA, CUDA_OPTIONS), CPU]


def score_tolerance(score: float) -> float:
    """Return how far two processors' scores of one image may lie apart, in the score's own unit.

    >>> score_tolerance(-2.0), score_tolerance(0.0)
    (0.0002, 1e-05)
    """
    return SCORE_TOLERANCE * max(abs(score), SMALLEST_SCORE)


def short_name(provider: str) -> str:
    """Return a provider's name as people know it.

    >>> short_name(CUDA)
    'CUDA'
    """
    return provider.removesuffix("ExecutionProvider")


def describe_mismatch(calibrated_on: str | None, ran_on: Iterable[str], threshold: float) -> str | None:
    """Return a warning where scores were made by another provider than the threshold; None where the same made both.

    Args:
        calibrated_on: The provider of the calibration scores; None: not known.
        ran_on: Providers of the scores.
        threshold: Of the scores.
    """
    others = sorted(short_name(each) for each in {*ran_on} - {calibrated_on})
    if calibrated_on is None or not others:
        return None
    here = short_name(calibrated_on)
    return (
        f"the model was calibrated on {here} and scored on {' and '.join(others)}: scores of the two may differ by "
        f"{score_tolerance(threshold):.1g}, so an image that close to the threshold of {threshold:.4f} may get the "
        f"other verdict. Set KINTSUGI_DEVICE={here.lower()}, or train again where you score"
    )


def _identity_model() -> bytes:
    """A one-node ONNX file (y = x, one float), spelt out so that the worker needs no `onnx` package."""

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    def varint(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    shape = field(2, field(1, varint(1, 1)))
    kind = field(2, field(1, varint(1, 1) + shape))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + kind) + field(12, field(1, b"y") + kind)
    return varint(1, 8) + field(7, graph) + field(8, varint(2, 17))
