"""The pictures of a report: the worst images beside good ones, restored images, and the legend of heat maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pipelines.anomaly.heatmap import position, ramp_colours
from pipelines.base.files import folds_names, map_name
from pipelines.base.safe_text import printable
from pipelines.images import OUTPUT_MARKER
from pipelines.report import sentences, words
from pipelines.report.folder import HeatFacts, Picture

SHOWN_PAIRS = 24  # of restored images: a fifth of a megabyte each
_APART = 0.15  # of the legend's width between two marks


def pack_gallery(
    gallery: Sequence[Picture], heat: HeatFacts | None, out: Path, metadata: Mapping[str, object]
) -> dict[str, object]:
    """Return the worst images for gallery.js; a good image that several are close to is there once."""
    good: dict[str, int] = {}
    thumbnails: list[str] = []
    pictures: list[dict[str, object]] = []
    for picture in gallery:
        for near in picture.neighbours or ():
            if near.name not in good:
                good[near.name] = len(thumbnails)
                thumbnails.append(_encode(near.thumbnail))
        pictures.append(
            _pack(picture)
            | {
                "score": picture.score if picture.score is not None and np.isfinite(picture.score) else None,
                "map": _find_map(out, picture.path),
                "outlines": picture.outlines or None,
                "size": _read_size(picture.thumbnail) if picture.outlines else None,
                "words": sentences.describe_image(picture, heat, metadata),
                "near": [
                    {"name": printable(near.name), "distance": near.distance, "thumbnail": good[near.name]}
                    for near in picture.neighbours or ()
                ],
            }
        )
    return {"pictures": pictures, "good": thumbnails}


def pack_pairs(gallery: Sequence[Picture], unit: float) -> list[dict[str, object]]:
    """Return restored images for restore.js; error bars are multiplied by the unit."""
    return [
        _pack(picture)
        | {
            "restored": _encode(picture.restored) if picture.restored else None,
            "samples": [_encode(data) for data in picture.sampled or ()],
            "words": list(sentences.describe_result(picture, unit)),
        }
        for picture in gallery[:SHOWN_PAIRS]
    ]


def _pack(picture: Picture) -> dict[str, object]:
    return {
        "path": printable(picture.path),
        "thumbnail": _encode(picture.thumbnail),
        "heatmap": _encode(picture.heatmap) if picture.heatmap else None,
    }


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True, slots=True)
class Mark:
    """A share of good images' places, and where its colour is on the legend."""

    at: float  # from 0 to 1
    label: str


@dataclass(frozen=True, slots=True)
class Legend:
    """The colours of the heat maps.

    Attributes:
        stops: Place on the legend from 0 to 1, colour, opacity.
        marks: What some places mean.
        beyond: Where what no good image shows begins, from 0 to 1.
        sentences: What the colours and outlines mean.
    """

    stops: tuple[tuple[float, str, float], ...]
    marks: tuple[Mark, ...]
    beyond: float
    sentences: tuple[str, ...]


def make_legend(heat: HeatFacts) -> Legend:
    """Return the legend of a run's heat maps."""
    at = np.linspace(0, 1, 21)
    stops = tuple(
        (round(float(place), 3), f"rgb({r},{g},{b})", round(int(a) / 255, 3))
        for place, (r, g, b, a) in zip(at, ramp_colours(at), strict=True)
    )
    marks = tuple(
        Mark(place, f"1 in {words.round_count(1 / share)}")
        for share, place in heat.colours
        if share in (0.01, 0.001, 0.0001)
    )
    if heat.smallest is not None and all(abs(mark.at - position(heat.smallest)) > _APART for mark in marks):
        marks += (Mark(position(heat.smallest), f"1 in {words.round_count(1 / heat.smallest)}"),)
    beyond = max((place for _, place in heat.colours), default=1.0) if heat.places else 1.0
    said = sentences.describe_colours(heat.level, heat.places, heat.smallest, heat.speck_percent)
    return Legend(stops, marks, beyond, tuple(said))


def _read_size(thumbnail: bytes) -> list[int] | None:
    try:
        with Image.open(io.BytesIO(thumbnail)) as picture:
            return list(picture.size)
    except OSError:
        return None


def _find_map(out: Path, path: str) -> str | None:
    """Return where the heat map of an image lies, if it has one."""
    names = [map_name(path, folds=True)]  # of a folder that was made elsewhere, too
    if not folds_names(out, OUTPUT_MARKER):
        names.append(map_name(path))
    for inside in names:
        try:
            if ".." not in PurePosixPath(inside).parts and (out / inside).is_file():
                return printable(inside)
        except (OSError, ValueError):  # a name that this file system cannot hold
            continue
    return None
