"""The page of `kintsugi restore`: before and after with a divider, error bars, figures against clean images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipelines.base.parquet import open_parquet
from pipelines.base.safe_text import printable
from pipelines.report import sentences
from pipelines.report.folder import RESULTS, Picture, Run
from pipelines.report.page import Sections, pack
from pipelines.report.pictures import pack_pairs
from pipelines.report.rows import FAILED, FIGURES, Rows, take_floats, take_texts
from pipelines.restoration.pictures import PALETTE, WIDE, WIDE_OF_COLOURS

LEVELS = 255  # error bars are shown in 8-bit levels, whatever the depth of the file; but for those of labels


def describe_restoration(out: Path, run: Run, rows: Rows, gallery: Sequence[Picture]) -> Sections:
    """Collect what the page of `kintsugi restore` shows."""
    metadata, failed = run.model.metadata, rows.count(FAILED)
    classes, is_coloured = _list_classes(metadata), "gain" in metadata
    verb = "coloured" if is_coloured else "labelled" if classes else "restored"
    unit = 1 if classes else LEVELS
    scale = metadata.get("scale", 1)
    facts = {
        "headline": sentences.summarise_results(verb, ok=rows.total - failed, failed=failed, scale=scale),
        "done": verb,
        "classes": classes,
        "coloured": is_coloured,
        "cautions": list(sentences.warn_of_results(metadata)),
        "wide": WIDE_OF_COLOURS if is_coloured else WIDE,
        "figures": _measure_means(out / RESULTS),
        "noise": _describe_noise(out / RESULTS),
        "sampled": any(picture.sampled for picture in gallery),
        "intervals": _list_intervals(metadata),
        "calibration": None,
        "evaluation": None,
    }
    columns = {
        "score": None,
        "error_bar": pack(unit * take_floats(rows.worst, "mean_scale"), "f4"),
        "error_unit": None if classes else "levels",
        "outputs": [printable(name or "") for name in take_texts(rows.worst, "output")],
        "done": verb,
    }
    data = {"gallery": pack_pairs(gallery, unit)}
    return Sections(
        template="restore.html", facts=facts, columns=columns, data=data, scripts=("pairs.js", "restore.js")
    )


def _measure_means(path: Path) -> dict[str, float]:
    """Return means over all images of what was measured."""
    found: dict[str, float] = {}
    with open_parquet(path) as file:
        for name in FIGURES:
            if name in file.schema_arrow.names:
                mean = pc.mean(file.read(columns=[name])[name]).as_py()
                found |= {} if mean is None else {name: float(mean)}
    return found


def _describe_noise(path: Path) -> sentences.NoiseFacts | None:
    """Noise of the images before and after; None of models that change their size, and of an older run."""
    with open_parquet(path) as file:
        if "input_noise" not in file.schema_arrow.names:
            return None
        table = file.read(columns=["input_noise", "output_noise"])
    before, after = (table[name].drop_null().to_numpy() for name in ("input_noise", "output_noise"))
    if not len(before):
        return None
    return sentences.NoiseFacts(len(before), LEVELS * float(np.median(before)), LEVELS * float(np.median(after)))


def _list_intervals(metadata: Mapping[str, object]) -> list[tuple[str, float]]:
    """Return shares of pixels in words, and how many error bars hold so many."""
    found = metadata.get("intervals")
    return [(f"{float(share):.0%}", float(width)) for share, width in found.items()] if isinstance(found, dict) else []


def _list_classes(metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return names of the classes beyond the background, and the colours that they are drawn in."""
    names = metadata.get("classes")
    if not isinstance(names, list):
        return []
    return [(str(name), "rgb({}, {}, {})".format(*PALETTE[value % 256])) for value, name in enumerate(names) if value]
