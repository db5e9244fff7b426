"""Photographs of one piece: which images belong together, and whether images that are all but alike were separated.

Photographs of one piece are alike. If some are trained on and others calibrate, the thresholds are those of pieces that
the model knows, and a new piece is flagged more often than promised. Belongs to the scoring side: numpy and scipy only.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base.safe_text import plural
from pipelines.base.subsample import evenly_spaced
from pipelines.errors import DataError

log = logging.getLogger(__name__)
ALIKE = 0.9  # correlation of two images, but for what all images share, from which they are nearly the same
FEW = 0.05  # share of held-out images that are nearly the same as one that is trained on, up to which nothing is said
FEWEST = 3  # such images, too
KEPT = 0.99  # share of the variance that is compared; the rest is taken for noise
IMAGES_A_DIRECTION = 4  # fewer, and the directions of variation are those of chance
MOST_SHOWN, MOST_KNOWN = 1_000, 20_000  # images that are compared: held out, and trained on
MOST_MEASURED = 5_000  # images that tell how images vary

Floats = NDArray[np.floating[Any]]


def with_their_pieces(indices: Iterable[int], pieces: Sequence[str]) -> set[int]:
    """Some images, and all others that show the same pieces; these images alone where pieces are not known."""
    known = set(indices)
    shown = {pieces[index] for index in known} if pieces else set()
    return known | {index for index, piece in enumerate(pieces) if piece in shown}


class PieceSplit(NamedTuple):
    """Indices of images, and how many pieces they show."""

    calibrate: list[int]
    select: list[int]
    train: list[int]
    pieces: tuple[int, int, int]


def split_pieces(digests: Sequence[str], pieces: Sequence[str], calibrate: int, select: int) -> PieceSplit:
    """Divide pieces into calibrate, select and train, by the order of their images' contents.

    Args:
        digests: sha256 of each image; all different.
        pieces: What each shows.
        calibrate: Images to calibrate, at least: pieces are added until they have these, and two at least.
        select: Images to select, likewise; one piece at least.

    Raises:
        DataError: Fewer than two pieces are left to train.
    """
    members: dict[str, list[int]] = {}
    for index, piece in enumerate(pieces):
        members.setdefault(piece, []).append(index)

    def content(piece: str) -> str:
        return hashlib.sha256("".join(sorted(digests[index] for index in members[piece])).encode()).hexdigest()

    waiting = sorted(members, key=content)
    parts: list[list[int]] = []
    counts: list[int] = []
    for wanted, fewest in ((calibrate, 2), (select, 1)):
        part: list[int] = []
        taken = 0
        while waiting and (len(part) < wanted or taken < fewest):
            part += members[waiting.pop(0)]
            taken += 1
        parts.append(part)
        counts.append(taken)
    if len(waiting) < 2:
        largest, most = Counter(pieces).most_common(1)[0]
        raise DataError(
            f"{len(pieces)} images show {plural(len(members), 'piece')} by 'data.group' (of '{largest}' there are "
            f"{plural(most, 'image')}): {plural(counts[0], 'piece')} to calibrate and {plural(counts[1], 'piece')} "
            f"to select leave {plural(len(waiting), 'piece')} to train, and 2 pieces are needed. Add images of other "
            "pieces, lower 'calibrate.fraction', or give another 'data.group'"
        )
    train = [index for piece in waiting for index in members[piece]]
    return PieceSplit(parts[0], parts[1], train, (counts[0], counts[1], len(waiting)))


def announce_pieces(pieces: Sequence[str], calibrate: Iterable[int], train: Iterable[int], rule: str) -> None:
    """Say how many pieces there are, so that a person can see whether the rule finds them, and warn if it finds none.

    Args:
        pieces: What each image shows.
        calibrate: Images to calibrate.
        train: Images to train.
        rule: What the job says of pieces: see `pieces_of`.
    """
    counts = Counter(pieces)
    shown, held = (len({pieces[index] for index in part}) for part in (train, calibrate))
    examples = ", ".join(f"'{piece}' {count}" for piece, count in list(counts.items())[:3])
    log.info("%d pieces (data.group), images of each: %s", len(counts), examples + ", ..." * (len(counts) > 3))
    log.info(
        "of these, %d to train and %d to calibrate: the false-alarm rate rests on %d pieces, since images of one are "
        "alike", shown, held, held,
    )  # fmt: skip
    if len(counts) == len(pieces):
        log.warning(
            "each of the %d pieces has one image: data.group = '%s' keeps nothing together; give the rule that finds "
            "the name of the piece, or leave it out if no two images show one piece", len(counts), rule,
        )  # fmt: skip


def warn_of_crossing(
    picture: Callable[[int], NDArray[Any]],
    names: Sequence[str],
    held: Sequence[int],
    train: Sequence[int],
    *,
    group: str | None,
    most: int = MOST_KNOWN,
) -> int:
    """Warn if images that are held out are nearly the same as images that are trained on.

    Args:
        picture: An image (H, W, C), by its index.
        names: Of the images.
        held: Images that are held out.
        train: Images that are trained on.
        group: The job's rule for images of one piece, if there is one.
        most: Images that are trained on and looked at, at most.

    Returns:
        How many held-out images are.
    """
    from pipelines.images.resaved import coarse

    some, known = evenly_spaced(held, MOST_SHOWN), evenly_spaced(train, most)
    twins = nearly_same(np.array([coarse(picture(i)) for i in some]), np.array([coarse(picture(i)) for i in known]))
    found = [(names[some[one]], names[known[other]]) for one, other in enumerate(twins) if other >= 0]
    if len(found) < max(FEWEST, FEW * len(some)):
        return len(found)
    log.warning(
        "%d of %d held-out images look nearly like one that is trained on (%s): a new piece may be flagged more often "
        "than asked", len(found), len(some), " and ".join(found[0]),
    )  # fmt: skip
    if group is None:
        log.warning(
            "where several images show one piece, 'data.group' in the job file keeps them together "
            "(docs/guides/thresholds.md)"
        )
    else:
        log.warning(
            "'data.group' is '%s' and does not keep these together: if they show one piece, give a rule that finds its "
            "name in both (docs/guides/thresholds.md)", group,
        )  # fmt: skip
    return len(found)


def nearly_same(held: Floats, train: Floats) -> NDArray[np.int64]:
    """Of each held-out image the image that it is nearly the same as, or -1.

    Images are compared in what makes them differ: directions of variation count alike (whitening), so that what all
    images share, or all of one kind, makes none alike. Two are nearly the same if they correlate by at least `ALIKE`,
    and more than the most that any two images are expected to by chance.

    Args:
        held: (M, D), as `coarse` makes them.
        train: (N, D).
    """
    from scipy.special import betaincinv

    none = np.full(len(held), -1)
    some = train[np.linspace(0, len(train) - 1, min(len(train), MOST_MEASURED)).astype(int)] if len(train) else train
    if len(held) == 0 or len(some) < 2 * IMAGES_A_DIRECTION:
        return none
    mean = some.mean(axis=0)
    _, spread, axes = np.linalg.svd(some - mean, full_matrices=False)
    share = np.cumsum(np.square(spread)) / max(float(np.square(spread).sum()), 1e-12)
    count = min(int(np.searchsorted(share, KEPT)) + 1, len(some) // IMAGES_A_DIRECTION)
    if count < 2 or spread[count - 1] <= 0:
        return none
    one, other = (_directions((each - mean) @ (axes[:count] / spread[:count, None]).T) for each in (held, train))
    chance = betaincinv((count - 1) / 2, 0.5, min(1.0, 1 / (len(one) * len(other))))  # of a cosine, squared, from one
    limit = max(ALIKE, float(np.sqrt(1 - chance)))
    alike = one @ other.T
    best = alike.argmax(axis=1)
    return np.where(alike[np.arange(len(one)), best] >= limit, best, -1)


def _directions(points: Floats) -> Floats:
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(length > 0, length, 1)
