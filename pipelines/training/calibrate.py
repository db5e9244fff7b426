"""Calibration of an anomaly model: what good images score that it was not fitted to, or that folds were not."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.abnormal_regions import LOCAL_LEVEL
from pipelines.anomaly.calibration import MAP_QUANTILES, Calibration
from pipelines.anomaly.drift import STATISTICS, UNCHANGED
from pipelines.anomaly.equating import Reserve
from pipelines.anomaly.group_thresholds import group_of
from pipelines.anomaly.image_facts import image_facts
from pipelines.anomaly.place_quantiles import GoodPlaces
from pipelines.anomaly.rate_claim import Kind, Measured
from pipelines.base.subsample import evenly_spaced
from pipelines.data.image_changes import vary
from pipelines.data.training_images import TrainingData
from pipelines.images import Decoded, Failed, ImageFile
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import CALIBRATION_FILE, Metadata
from pipelines.models.session import SCORES, Session, keyed_generator
from pipelines.training.closed_form import HeldOut

log = logging.getLogger(__name__)

STATISTICS_IMAGES = 2000  # calibration images whose facts are kept: enough to notice any drift that matters
MAP_VALUES = 20_001  # of each image's map that the table of good places is made of
MAP_VALUES_IN_ALL = 20_000_000  # fewer of each where there are many images: memory stays flat


def calibrate(
    session: Session, files: Sequence[ImageFile], false_alarms: float | None, changes: Sequence[str] = ()
) -> Calibration:
    """Score held-out good images with the exported file itself and write calibration.json beside it.

    Args:
        session: The exported file, open.
        files: Good images that were used for nothing else.
        false_alarms: The promised rate that the job asks for; None leaves it to the number of images.
        changes: Normal changes, which each image is given first.
    """
    found = _Found(len(files))
    for image in decode_for(files, session.metadata):
        if isinstance(image, Failed):
            continue
        pixels = vary(image.pixels, changes, keyed_generator(image.sha256))
        values = session.run(pixels[None], [image.sha256], SCORES)
        scored = {name: float(values[name][0]) for name in ("score", "rate", "distortion")}
        found.add(image, pixels, scored, values["anomaly_map"])
        if changes:
            before = session.run(image.pixels[None], [image.sha256], ("score",))["score"]
            found.add_unchanged(image, float(before[0]))
    calibration = found.calibration(session, false_alarms)
    calibration.save(session.model.folder / CALIBRATION_FILE)
    return calibration


def calibrate_by_folds(
    session: Session,
    data: TrainingData,
    held_out: HeldOut,
    false_alarms: float | None,
    changes: Sequence[str] = (),
) -> Calibration:
    """Write calibration.json of what folds that had not seen them made of all good images.

    Args:
        session: The exported file, open.
        data: The images.
        held_out: Their scores and maps.
        false_alarms: The rate that the job asks for; None leaves it to the number of images.
        changes: Normal changes that the held-out images were given.
    """
    calibrating = set(data.split["calibrate"])  # images that people answered about train, and do not calibrate
    counts = np.array([index in calibrating for index in held_out.indices])
    found = _Found(int(counts.sum()))
    row_of = {data.files[index].relative: row for row, index in enumerate(held_out.indices) if counts[row]}
    in_reserve = score_files(session, data.files_of("select"))
    reserve = _reserve_of(data, held_out, in_reserve)
    scores, before = _on_scale(reserve, held_out), _on_scale(reserve, held_out, held_out.unchanged)
    files = [data.files[index] for index in held_out.indices if index in calibrating]
    for image in decode_for(files, session.metadata):
        if isinstance(image, Failed):
            continue
        row = row_of[image.file.relative]
        # Only the score: the folds' bounds are not the deployed model's, and every batch would seem to have moved.
        pixels = vary(image.pixels, changes, keyed_generator(image.sha256))
        found.add(image, pixels, {"score": float(scores[row])}, held_out.maps[row].numpy())
        if changes:
            found.add_unchanged(image, float(before[row]))
    calibration = found.calibration(session, false_alarms, kind="cross", folds=held_out.folds)
    rate = calibration.default_false_alarms()
    if reserve is None:
        judged = [(calibration.threshold(rate), list(in_reserve.values()))]
    else:  # each by a threshold on a scale that it took no part in
        log.info(
            "good images score %.2g lower under this model than under its folds (%d in reserve): thresholds follow",
            float(np.mean(np.array(held_out.scores)[counts]) - np.mean(scores[counts])), len(reserve.final),
        )  # fmt: skip
        judged = [
            (_threshold(_on_scale(others, held_out)[counts], rate), own.tolist())
            for others, own in reserve.without_each()
        ]
    if in_reserve:
        flagged = sum(score > threshold for threshold, own in judged for score in own)
        measured = Measured(rate=rate, images=len(in_reserve), flagged=flagged)
        calibration = calibration.model_copy(update={"measured": measured})
    calibration.save(session.model.folder / CALIBRATION_FILE)
    return calibration


def _reserve_of(data: TrainingData, held_out: HeldOut, scores: Mapping[str, float]) -> Reserve | None:
    """What images in reserve score under the folds and under the exported file; None where there is none to compare."""
    if held_out.by_fold is None or not scores:
        return None
    select = data.split["select"]
    read = [place for place, index in enumerate(select) if data.sha256[index] in scores]
    final = np.array([scores[data.sha256[select[place]]] for place in read])
    pieces = tuple(data.pieces[select[place]] for place in read) if data.pieces else ()
    return Reserve(held_out.by_fold.reserve[:, read], final, pieces)


def _on_scale(reserve: Reserve | None, held_out: HeldOut, some: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The held-out scores, or others of the same images, on the scale of the final model."""
    scores = np.array(held_out.scores if some is None else some)
    if reserve is None or held_out.by_fold is None or not len(scores):
        return scores
    return reserve.equate(scores, held_out.by_fold.fold_of)


def _threshold(scores: NDArray[np.float64], rate: float) -> float:
    return Calibration(model_sha256="", scores=tuple(scores.tolist()), map_quantiles={}).threshold(rate)


def score_files(session: Session, files: Sequence[ImageFile]) -> dict[str, float]:
    """Return the score of each file that can be read, by the digest of its content."""
    return {
        image.sha256: float(session.run(image.pixels[None], [image.sha256], ("score",))["score"][0])
        for image in decode_for(files, session.metadata)
        if not isinstance(image, Failed)
    }


class _Found:
    """What calibration images score, as it is found."""

    def __init__(self, images: int) -> None:
        self.scores: list[float] = []
        self.groups: dict[str, list[float]] = {}
        self.statistics: dict[str, list[float]] = {name: [] for name in STATISTICS}
        self.pixels: list[NDArray[np.float32]] = []
        self.highest = -np.inf
        self._positions = frozenset(evenly_spaced(range(images), STATISTICS_IMAGES))
        self._share = (np.arange(min(MAP_VALUES, MAP_VALUES_IN_ALL // max(1, images) + 1)) + 0.5).astype(np.float64)

    @property
    def _counts(self) -> bool:
        """Return whether the statistics of the last image are kept: the first paths may be of one camera alone."""
        return len(self.scores) - 1 in self._positions

    def add(
        self, image: Decoded, pixels: NDArray[Any], scored: dict[str, float], anomaly_map: NDArray[np.float32]
    ) -> None:
        """Take in an image: its score, with rate and distortion where they are known, and its map.

        Args:
            image: The image.
            pixels: Of it, with the normal changes.
            scored: What it scores.
            anomaly_map: Its map.
        """
        self.scores.append(scored["score"])
        self.groups.setdefault(group_of(image.file.relative), []).append(scored["score"])
        if self._counts:
            for name, value in (scored | image_facts(pixels)).items():
                self.statistics[name].append(value)
        flat = np.sort(anomaly_map, axis=None)
        self.pixels.append(flat[(self._share / len(self._share) * len(flat)).astype(int)])  # an even share of each
        self.highest = max(self.highest, float(flat[-1]))

    def add_unchanged(self, image: Decoded, score: float) -> None:
        """Take in an image that was added with normal changes as it is without them: both are usual."""
        if self._counts:
            for name, value in ({"score": score} | image_facts(image.pixels)).items():
                self.statistics.setdefault(f"{UNCHANGED}{name}", []).append(value)

    def calibration(
        self, session: Session, false_alarms: float | None, *, kind: Kind = "split", folds: int | None = None
    ) -> Calibration:
        """Make a calibration of it."""
        pooled = np.append(np.concatenate(self.pixels), np.float32(self.highest))
        quantiles = np.quantile(pooled, [float(q) for q in MAP_QUANTILES])
        return Calibration(
            kind=kind,
            folds=folds,
            model_sha256=session.model.sha256,
            scores=tuple(self.scores),
            map_quantiles=dict(zip(MAP_QUANTILES, map(float, quantiles), strict=True)),
            false_alarms=false_alarms,
            statistics={name: tuple(each) for name, each in self.statistics.items() if each},
            places=GoodPlaces.of(pooled, len(self.scores) * places_in(session.metadata)),
            groups={name: tuple(each) for name, each in self.groups.items()} if len(self.groups) > 1 else {},
            provider=session.provider,
            local_share=local_share(session.metadata),
        )


def local_share(metadata: Metadata) -> float | None:
    """Return the share of good places above a region's level; None if the model resizes whole images."""
    if metadata.window_overlap is None:
        return None
    return LOCAL_LEVEL * min(1.0, math.prod(metadata.size) / math.prod(metadata.median_size or metadata.size))


def places_in(metadata: Metadata) -> int:
    """Places of one image: points of the anomaly map's own grid. An older file is taken to have the finest stride's.

    Of a model of windows, those of an image of the median size.
    """
    finest = [max(1, side // min(metadata.strides)) for side in metadata.size]
    places = math.prod(metadata.places or finest)
    if metadata.window_overlap is None or metadata.median_size is None:
        return places
    return max(places, round(places * math.prod(metadata.median_size) / math.prod(metadata.size)))
