"""Rows of the output: one for each file, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.anomaly.image_facts import FACT_NAMES
from pipelines.batch.schema import BEFORE_AND_AFTER, FLAGGED_FOR, HIGHEST, LABELLED, PICTURES, REGIONS, RESTORED, Row
from pipelines.images import Decoded, Failed, ImageFile, UnreadableFolder
from pipelines.models.model_file import Metadata

MUCH_SMALLER = 4  # times, along the longer side, than what the model works at and than what it was trained on


def empty_row(file: ImageFile) -> Row:
    """A row that knows its file and nothing else yet."""
    return {
        "path": file.relative,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        **dict.fromkeys(("sha256", "width", "height", "bit_depth", "status", "error", "note")),
        **dict.fromkeys(("score", "bits_per_dim", "elbo", "rate", "distortion", *FACT_NAMES)),
        **dict.fromkeys(
            name for name, _ in (*LABELLED, *REGIONS, *RESTORED, *FLAGGED_FOR, *BEFORE_AND_AFTER, *PICTURES)
        ),
    }


def failed_row(failed: Failed) -> Row:
    """A row of a file that could not be decoded, with the reason."""
    return empty_row(failed.file) | {"status": "failed", "error": failed.reason, "sha256": failed.sha256}


def unreadable_row(place: UnreadableFolder) -> Row:
    """A row of a folder that could not be listed, with the reason."""
    file = ImageFile(place.path, place.relative, 0, 0)
    return empty_row(file) | {"status": "failed", "error": f"the folder cannot be read: {place.reason}"}


def note_of(image: Decoded, model: Metadata) -> str | None:
    """Return a warning if the image was enlarged so much that its score means little, with the note of its decoding.

    Not where the model was trained on images as small, and so calibrated on them. A model of windows enlarges nothing:
    the warning is of an image that does not fill a window.

    Args:
        image: The image.
        model: What it is given to.
    """
    size = model.size
    if model.window_overlap is not None:
        if image.height >= size[0] and image.width >= size[1]:
            return image.note
        sides = f"{image.width} x {image.height} pixels do not fill the model's window of {size[1]} x {size[0]}"
        mirrored = f"{sides}: mirrored until they do"
        return f"{image.note}; {mirrored}" if image.note else mirrored
    seen = min(max(size), max(model.median_size or size))
    if MUCH_SMALLER * max(image.height, image.width) >= seen:
        return image.note
    enlarged = f"enlarged from {image.width} x {image.height} pixels to {size[1]} x {size[0]}: its score says little"
    return f"{image.note}; {enlarged}" if image.note else enlarged


def forget_regions(rows: Sequence[Row]) -> None:
    """Say nothing of regions where the image as a whole is not abnormal: good images have odd places, too."""
    for row in rows:
        if not row["is_anomaly"]:
            row.update(dict.fromkeys(name for name, _ in (*REGIONS, *HIGHEST)))
