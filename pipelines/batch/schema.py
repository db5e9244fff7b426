"""Columns of the rows that jobs over folders write: of results for people, and of shards while the job runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.anomaly.image_facts import FACT_NAMES
from pipelines.base.parquet import open_parquet

Row = dict[str, Any]

# What the heat map of a flagged image shows; null for all others. docs/reference/output-folder.md explains each.
REGIONS = [
    ("local_p_value", pa.float64()),
    ("regions", pa.int32()),
    ("regions_percent", pa.float64()),
    ("largest_left", pa.int32()),
    ("largest_top", pa.int32()),
    ("largest_width", pa.int32()),
    ("largest_height", pa.int32()),
    ("largest_x", pa.float64()),
    ("largest_y", pa.float64()),
]
# What a score owes most to, of every scored image; where the highest region lies, of flagged ones.
HIGHEST = [("place", pa.string()), ("highest_x", pa.float64()), ("highest_y", pa.float64())]
FLAGGED_FOR = [("expert", pa.string()), ("expert_score", pa.float64()), *HIGHEST]
# Which verdict is the run's, and both, where there are both (`pipelines.anomaly.against`).
BOTH_REFERENCES = [
    ("against", pa.string()),
    ("calibration_p_value", pa.float64()),
    ("calibration_is_anomaly", pa.bool_()),
    ("folder_p_value", pa.float64()),
    ("folder_is_anomaly", pa.bool_()),
]
# Of images that have classes, which the model tells; null elsewhere.
LABELLED = [("label", pa.string()), ("label_probability", pa.float64())]
# Of images that were mended; null where they were scored.
RESTORED = [
    ("output", pa.string()),
    ("mean_scale", pa.float64()),
    ("psnr", pa.float64()),  # where there are clean images to compare with
    ("ssim", pa.float64()),
    ("dice", pa.float64()),  # where pixels were labelled, and there are true labels
    ("iou", pa.float64()),
    ("samples", pa.int32()),  # that were drawn beside
    ("disagreement", pa.float64()),  # share of the pixels that not all of them give to one class
]
# Of images that were mended and kept their size: estimated noise, as shares of the range of values; and what the image
# itself was worth beside the clean one.
BEFORE_AND_AFTER = [
    ("input_noise", pa.float64()),
    ("output_noise", pa.float64()),
    ("input_psnr", pa.float64()),
    ("input_ssim", pa.float64()),
]
RESULTS = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bit_depth", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("score", pa.float64()),
        ("bits_per_dim", pa.float64()),
        ("elbo", pa.float64()),
        ("rate", pa.float64()),
        ("distortion", pa.float64()),
        ("p_value", pa.float64()),
        ("is_anomaly", pa.bool_()),
        ("threshold", pa.float64()),
        ("note", pa.string()),
        ("group", pa.string()),
        *LABELLED,
        *REGIONS,
        *RESTORED,
        ("promised", pa.bool_()),  # whether the rule is proved to hold for this verdict; null where there is none
        *FLAGGED_FOR,
        *BOTH_REFERENCES,
        *BEFORE_AND_AFTER,
    ]
)
# Known at the end, where there are images to compare with.
FIGURES_OF_REFERENCE = ("psnr", "ssim", "dice", "iou", "input_psnr", "input_ssim")
PICTURES = [
    ("thumbnail", pa.binary()),
    ("heatmap", pa.binary()),
    ("restored", pa.binary()),
    ("sampled", pa.list_(pa.binary())),
    ("outlines", pa.string()),  # of the abnormal regions: data of an SVG path, in pixels of the thumbnail
    (
        "neighbours",
        pa.list_(pa.struct([("name", pa.string()), ("distance", pa.float64()), ("thumbnail", pa.binary())])),
    ),
]
GALLERY = pa.schema(
    [
        ("path", pa.string()),
        ("score", pa.float64()),
        *LABELLED,
        *REGIONS,
        *RESTORED,
        *FLAGGED_FOR,
        *BEFORE_AND_AFTER,
        *PICTURES,
    ]
)
VERDICTS = (
    "model",
    "version",
    "p_value",
    "is_anomaly",
    "threshold",
    "group",
    "promised",
    *(name for name, _ in BOTH_REFERENCES),
)  # known at the end, not part of a shard
SHARD = pa.schema(
    [field for field in RESULTS if field.name not in VERDICTS]
    + [pa.field("size", pa.int64()), pa.field("mtime_ns", pa.int64()), pa.field("pictured", pa.bool_())]
    + [pa.field(name, pa.float64()) for name in FACT_NAMES]
    + [pa.field(name, kind) for name, kind in PICTURES]
)


def rank_of(row: Row) -> float:
    """By what the worst images are known: the score, or how wide the error bar of a restored one is."""
    rank: float = row["mean_scale"] if row["score"] is None else row["score"]
    return rank


def worst_first(row: Row) -> tuple[float, str]:
    """Sort key: highest rank first, then by path."""
    return (-rank_of(row), row["path"])


def read_shard(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of a shard; those that an older version did not know are null."""
    with open_parquet(path, page_checksum_verification=True) as file:
        there = [name for name in file.schema_arrow.names if name in names]
        table = file.read(columns=there)
    for name in names:
        if name not in there:
            table = table.append_column(name, pa.nulls(len(table), SHARD.field(name).type))
    return table.select(list(names))
