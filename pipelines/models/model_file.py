"""A model on disk: one ONNX file that holds everything, and what lies beside it."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from pipelines.anomaly.calibration import Calibration
from pipelines.errors import DigestError, ModelError
from pipelines.images.windows import Windows

METADATA_KEY = "kintsugi"  # the one key of the ONNX metadata that is ours; its value is JSON
MODEL_FILE = "model.onnx"
CALIBRATION_FILE = "calibration.json"
GALLERY_FILE = "gallery.safetensors"
DECODER_FILE = "decoder.onnx"
CARD_FILE = "card.md"
JOB_FILE = "job.toml"
SPLIT_FILE = "split.json"
FILES = "files"  # in it: digests of all files that there were, where others are of images
ANSWERED = "answered"  # in it: digests of images that people's answers brought in, or kept out
WEIGHTS_FILE = "weights.safetensors"
LEARNED = "learned"  # the damage of a model that was trained without pairs


class CommonMetadata(BaseModel):
    """What training tells whoever runs the file, in it. Later versions may add fields; older readers ignore them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1, 2] = 1  # 2: it works in windows; older versions, which would resize the image, refuse the file
    name: str  # of the model, in the registry
    task: str  # of the job file
    summary: str  # what the task is for, in a sentence
    channels: Literal[1, 3]  # of the images
    bit_depth: Literal[8, 16]  # of the images
    value_range: tuple[int, int]  # least and highest value of a pixel
    size_multiple: PositiveInt  # that height and width of the input are multiples of
    halo: NonNegativeInt | None  # receptive field radius in pixels, for tiling; null where the input is resized instead
    likelihood: str  # p(y | z), or that of the errors of a restored image
    outputs: dict[str, str]  # name -> unit
    adversarial: float | None = None  # weight of the adversarial term in training: sharp before faithful
    licence: str | None  # of the training images
    git_commit: str | None  # of the repository that the job file lies in
    data_digest: str  # of the pixels of all images that it was trained with
    images: dict[str, int]  # images in each split
    kintsugi: str  # version that exported it
    scales_bits: bool = False  # 16-bit images of fewer bits were brought to all 16: not in older files, nor by scoring


class Metadata(CommonMetadata):
    """Of a model that scores."""

    size: tuple[PositiveInt, PositiveInt]  # height and width that the network works at
    median_size: tuple[PositiveInt, PositiveInt] | None = None  # of the images trained on; older files do not say
    window_overlap: PositiveInt | None = None
    """Pixels that windows of `size` overlap by, at least, of a model of windows at full resolution; null: each image is
    resized as a whole."""
    target: str = "pixels"  # what y is made of
    backbone: str | None = None  # the frozen network of features
    strides: tuple[int, ...] = (1,)  # of its maps
    layers: tuple[int, ...] | None = None  # of a vision transformer, one for each stride, from 1
    places: tuple[int, int] | None = None  # rows and columns of the anomaly map's own grid; older files do not say
    stages: int | None = None  # halvings; older files do not say
    smooth: bool | Literal["both"] | None = None  # features are averaged over 3x3 places
    standardised: bool | None = None  # every image gets the same brightness and contrast first
    recentred: bool | None = None  # the mean over the image is taken off its features
    corruption: str | None = None  # of what the encoder saw in training
    composite: bool = False  # y holds the image more than once: its likelihood is a weighted composite
    dims: PositiveInt  # D, the dimensions of y
    latent_shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # latents of a cell, rows and columns of the grid
    samples: PositiveInt  # S, samples of the latent in each score
    classes: tuple[str, ...] = ()  # of images: each gets the name of one, or is rejected
    score: str  # how the score is made of the bound
    experts: tuple[
        tuple[str, float], ...
    ] = ()  # weight of each in the score, the VAE's first; none: of the bound alone
    aspects: dict[str, str] = {}  # what is most unusual where an expert counts most, as captions say it

    @property
    def tells_places(self) -> bool:
        """Whether its anomaly map says where: not where the images are judged as a whole."""
        return self.places != (1, 1)

    @property
    def tells_experts(self) -> bool:
        """Whether it gives each expert's own score: older files do not."""
        return bool(self.experts) and "expert_score" in self.outputs

    def windows_of(self, height: int, width: int) -> Windows | None:
        """Where the windows of an image lie, of a model of windows; None where each image is resized as a whole."""
        return None if self.window_overlap is None else Windows.over((height, width), self.size, self.window_overlap)

    def images_within(self, windows: int, *, least: int) -> int:
        """Return how many median images have this number of windows, `least` or more; no limit without windows."""
        windows_each = self.windows_of(*(self.median_size or self.size))
        return sys.maxsize if windows_each is None else max(least, windows // len(windows_each.places))


class RestorationMetadata(CommonMetadata):
    """Of a model that mends."""

    scale: PositiveInt  # how much larger the result is than the input
    damage: str  # what it was trained to undo
    level: str  # what the strength of the damage is, in words
    strengths: tuple[float, float]  # that it was trained on
    levels: tuple[float, ...]  # that it is measured at, unless others are asked for
    luma: bool  # figures are of the luma, without a border of `scale` pixels
    intervals: dict[str, float]
    """Share of held-out pixels -> half the width of the interval that holds it, in units of `restored_scale`."""
    multiplications: float | None = None  # of the network, for each pixel of the input; older files do not say

    @property
    def border(self) -> int:
        """Pixels along every side that figures leave out."""
        return self.scale if self.luma else 0


class SegmentationMetadata(CommonMetadata):
    """Of a model that labels pixels."""

    classes: tuple[str, ...]  # names, in the order of the labels' values; the first is background
    latent_channels: PositiveInt  # of the noise, its second input: (N, H / size_multiple, W / size_multiple, this)
    temperature: PositiveFloat  # that logits are divided by

    @property
    def scale(self) -> int:
        """Label images are as large as images."""
        return 1


class ColorizationMetadata(CommonMetadata):
    """Of a model that colours grey images."""

    side: PositiveInt  # rows and columns that the network works at; the graph resizes
    latents: PositiveInt  # of the noise that is its second input: (N, latents)
    gain: float  # that the chroma of samples is multiplied by
    backbone: str  # the frozen network
    intervals: dict[str, float]
    """Share of held-out values -> half the width of the interval that holds it, in units of `restored_scale`."""

    @property
    def scale(self) -> int:
        """Coloured images are as large as images."""
        return 1


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An ONNX file that was found, with its digest and where it came from."""

    path: Path
    sha256: str
    ref: str
    name: str | None = None  # in the registry
    version: str | None = None

    @property
    def folder(self) -> Path:
        """The bundle: the folder that also holds calibration, gallery and card."""
        return self.path.parent

    @property
    def pinned_ref(self) -> str:
        """A reference that will always mean this very file: an alias may move on."""
        return self.ref if self.version is None else f"{self.name}/{self.version}"

    def read(self) -> bytes:
        """Read the file, which has to be the one that was found: everything that is said of it is said of its digest.

        Raises:
            DigestError: It was replaced meanwhile.
            OSError: It cannot be read.
        """
        content = self.path.read_bytes()
        if (now := hashlib.sha256(content).hexdigest()) != self.sha256:
            msg = f"{self.path} was replaced while it was in use: its sha256 was {self.sha256} and is {now}"
            raise DigestError(f"{msg}. Start the same command again to use the new file")
        return content

    @property
    def trained_on(self) -> frozenset[str]:
        """Digests of the images that it, or its score, was fitted to; none where its folder does not tell."""
        split = self._split()
        return frozenset(digest for name in ("train", "scale", "degraded") for digest in split.get(name, ()))

    @property
    def images_of_training(self) -> frozenset[str]:
        """As well those of its folder of images that were held out: a later training may have them again."""
        others = (FILES, ANSWERED)
        return frozenset(digest for name, digests in self._split().items() if name not in others for digest in digests)

    @property
    def seen(self) -> frozenset[str] | None:
        """Digests of all files that there were when it was trained; None where its folder does not tell."""
        files = self._split().get(FILES)
        return None if files is None else frozenset(files)

    @property
    def answered(self) -> frozenset[str]:
        """Digests of the images that people's answers had brought in, or kept out, when it was trained."""
        return frozenset(self._split().get(ANSWERED, ()))

    def _split(self) -> dict[str, list[str]]:
        path = self.folder / SPLIT_FILE
        if not path.is_file():
            return {}
        try:
            return {name: list(map(str, digests)) for name, digests in json.loads(path.read_bytes()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            msg = f"{path} cannot be read as the list of training images ({error}): fetch the model again"
            raise ModelError(msg) from None

    @property
    def card(self) -> str | None:
        """The model card, in Markdown."""
        path = self.folder / CARD_FILE
        return path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else None

    def calibration(self, path: Path | None = None) -> Calibration | None:
        """The calibration beside the file, or the one given; None when there is none beside it.

        Raises:
            CalibrationError: It is damaged or belongs to another model file, or `path` does not exist.
        """
        beside = self.folder / CALIBRATION_FILE
        if path is None and not beside.is_file():
            return None
        return Calibration.load(path or beside, model_sha256=self.sha256)

    def registered_as(self, *, ref: str, name: str, version: str) -> ModelFile:
        """The same file under its registry name."""
        return replace(self, ref=ref, name=name, version=version)


def sha256_of(path: Path) -> str:
    """Digest of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
