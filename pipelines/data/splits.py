"""Which images train, select and calibrate: three splits by content.

Membership depends on contents alone, never on names or order: the same images give the same splits. It is by rank among
them, so that images change splits when the folder grows. Each bundle therefore records what its model was trained on
(`write_split`), and a comparison of two versions leaves out what the older one was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pipelines.base.files import write_atomically
from pipelines.data.pieces import split_pieces
from pipelines.errors import DataError
from pipelines.jobfile.job import Job
from pipelines.models.model_file import ANSWERED, FILES

FEWEST_IMAGES = 10
FEWEST_IN_CLOSED_FORM = 5
FEWEST_SELECT = 4
FEWEST_TRAIN = 4
FEWEST_SCALE = 2
RESERVED = 1 / 12  # share of the images, or pieces
FEWEST_RESERVED = 2  # images; one of fewer than ten
FEWEST_CROSSED = 2  # pieces
MOST_CROSSED = 2_000  # of more, some are held out for calibration: what is proved is then more than what is measured
ONE_PERCENT_NEEDS = 99  # calibration images for a promised rate of 1 %

SplitName = Literal["train", "select", "scale", "calibrate", "degraded", "degraded_select"]


def expect_enough(count: int, what: str, fewest: int = FEWEST_IMAGES) -> None:
    """Refuse to train on too few images.

    Args:
        count: Of the images.
        what: They are, for the message.
        fewest: That are enough.

    Raises:
        DataError: There are fewer.
    """
    if count < fewest:
        raise DataError(f"there are {count} {what}; training needs at least {fewest}, 400 to promise 1 %")


def crosses(job: Job, images: int) -> bool:
    """Whether a model in closed form is calibrated on all its images, by folds: asked for, or so few are there."""
    asked = job.calibrate.kind_asked
    return images <= MOST_CROSSED if asked is None else asked == "cross"


def is_crossed(split: Mapping[SplitName, Sequence[int]]) -> bool:
    """Whether the images that calibrate train as well, by folds."""
    return bool(split["calibrate"]) and set(split["calibrate"]) <= set(split["train"])


def reserve(digests: Sequence[str], pieces: Sequence[str] = ()) -> tuple[int, ...]:
    """Indices of images that nothing is fitted to: the same ones whatever else the folder holds, now or later.

    They are those whose content (or whose piece's name) has a small digest: about one in twelve, and at least two
    images (one of fewer than ten), or one piece. No version under any name was fitted to them, but for a few of small
    folders that grew.
    """
    keys = pieces or digests
    share = {key: int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 for key in set(keys)}
    few = len(keys) < FEWEST_IMAGES
    fewest = sorted(share.values())[: 1 if pieces or few else FEWEST_RESERVED]
    return tuple(i for i, key in enumerate(keys) if share[key] in fewest or (share[key] < RESERVED and not few))


def split_by_content(
    digests: Sequence[str],
    calibrate_fraction: float | None = None,
    pieces: Sequence[str] = (),
    *,
    cross: bool = False,
) -> dict[SplitName, tuple[int, ...]]:
    """Divide images into calibrate, select and train by the order of their digests.

    Args:
        digests: sha256 of each image; all different.
        calibrate_fraction: Share for calibration; default: 15 %, more where 99 images are at most a quarter.
        pieces: What each image shows: all images of one piece are in one split. Empty: each image alone.
        cross: All images train and calibrate, but for the `reserve`, which is the select split.

    Returns:
        Indices of each split; disjoint, all images in one of them, unless they cross.

    Raises:
        DataError: Fewer than ten images (five that cross), fewer than four left to train, or too few pieces.
    """
    count = len(digests)
    expect_enough(count, "different readable images", FEWEST_IN_CLOSED_FORM if cross else FEWEST_IMAGES)
    if cross:
        held = reserve(digests, pieces)
        rest = tuple(sorted(set(range(count)) - set(held)))
        if pieces and len({pieces[index] for index in rest}) < FEWEST_CROSSED:
            what = f"{len(set(pieces))} pieces by 'data.group'"
            raise DataError(f"{what} are too few: one in reserve, and {FEWEST_CROSSED} to train; add other pieces")
        if len(rest) < FEWEST_TRAIN:
            what = f"{count} images of {len(set(pieces))} pieces by 'data.group', less the piece in reserve,"
            raise DataError(
                f"{what} leave {len(rest)} to train, and at least {FEWEST_TRAIN} are needed: add good images"
            )
        return {"calibrate": rest, "select": held, "train": rest}
    if calibrate_fraction is None:  # what is not trained on is not known, so no more than the promise needs
        calibrate = min(max(ONE_PERCENT_NEEDS, round(count * 0.15)), round(count * 0.25))
    else:
        calibrate = round(count * calibrate_fraction)
    select = max(FEWEST_SELECT, round(min(count * 0.1, 20 + count * 0.03)))
    if (train := count - calibrate - select) < FEWEST_TRAIN:
        msg = (
            f"{count} different readable images less {calibrate} to calibrate and {select} to select leave "
            f"{max(0, train)} to train, and at least {FEWEST_TRAIN} are needed: add good images, or lower "
            f"'calibrate.fraction'"
        )
        raise DataError(msg)
    if pieces:
        parts = split_pieces(digests, pieces, calibrate, select)
        return {name: tuple(sorted(getattr(parts, name))) for name in ("calibrate", "select", "train")}
    order = sorted(range(count), key=lambda position: digests[position])
    return {
        "calibrate": tuple(sorted(order[:calibrate])),
        "select": tuple(sorted(order[calibrate : calibrate + select])),
        "train": tuple(sorted(order[calibrate + select :])),
    }


def choose_scale(select: Sequence[int], digests: Sequence[str], pieces: Sequence[str] = ()) -> tuple[int, ...]:
    """Choose half of the select split, to standardise the score of a deep VAE by; the other half judges the model.

    An image that the statistics were set from scores too well. By content, as all splits: an image that standardised
    one version hardly ever judges the next one.

    Args:
        select: Indices of the split; two or more.
        digests: sha256 of each image.
        pieces: What each image shows: images of one piece stay together, if the split has several. Empty: each alone.
    """
    names = pieces if len({pieces[index] for index in select} if pieces else ()) > 1 else digests
    keys = {index: hashlib.sha256(names[index].encode()).digest() for index in select}
    chosen = {key for key in keys.values() if key[0] < 128}
    if not FEWEST_SCALE <= sum(key in chosen for key in keys.values()) < len(keys):
        chosen = set(sorted(set(keys.values()))[::2])
    return tuple(index for index in select if keys[index] in chosen)


def write_split(
    path: Path,
    digests: Sequence[str],
    split: Mapping[SplitName, Sequence[int]],
    seen: frozenset[str],
    answered: frozenset[str] = frozenset(),
) -> None:
    """Record which contents were trained on, so that a later version can be compared on others.

    Args:
        path: Of the file.
        digests: Of the images.
        split: Which of them were for what.
        seen: Digests of all files that there were, images or not: what is new later is told by them.
        answered: Digests of the images that people's answers have brought in, or kept out.
    """
    document: dict[str, list[str]] = {name: [digests[index] for index in indices] for name, indices in split.items()}
    document |= {FILES: sorted(seen), ANSWERED: sorted(answered)}
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(document, sort_keys=True)))
