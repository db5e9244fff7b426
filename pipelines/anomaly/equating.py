"""Put what folds made of images that they had not seen on the scale of the model that is fitted to all of them.

That one has seen more images, so that new good ones score lower under it, and less differently: by the folds' scores
alone, fewer would be flagged than is asked. Images in reserve, which none has seen, tell how much lower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DOUBT = 4  # With this many images (or pieces) in reserve, scores move by half of the measured difference.
LEAST_RATIO = 0.5  # of the spreads: a smaller one is that of images that are all the same


@dataclass(frozen=True, slots=True, eq=False)
class Reserve:
    """What good images that nothing was fitted to score, under each fold and under the final model."""

    folds: Floats  # (K, R)
    final: Floats  # (R,)
    pieces: tuple[str, ...] = ()  # of each image; images of one piece count as one. Empty: each image is its own piece

    def equate(self, scores: Floats, fold_of: NDArray[np.int64]) -> Floats:
        """Put out-of-fold scores on the final model's scale, as far as the images in reserve can be believed.

        Scores of a fold move by the median difference of the two models, and are as much nearer to their middle as the
        final model's are.

        Args:
            scores: (N,) of images, each by the fold that had not seen it.
            fold_of: (N,), number of that fold.

        Returns:
            (N,) scores; as they were where nothing is in reserve.

        Source: Kolen and Brennan 2014, "Test equating, scaling, and linking", section 2.3, linear equating with one
        group; shrunk towards no change.
        """
        count = len(set(self.pieces)) if self.pieces else len(self.final)
        if not count:
            return scores
        belief = count / (count + DOUBT)
        move = belief * np.median(self.final - self.folds, axis=1)  # (K,)
        spread = self.folds.std(axis=1).mean()
        ratio = np.clip(self.final.std() / spread, LEAST_RATIO, 1) if count > 1 and spread > 0 else 1.0
        middle = np.median(self.folds, axis=1)
        equated: Floats = scores + move[fold_of] - belief * (1 - ratio) * (scores - middle[fold_of])
        return equated

    def without_each(self) -> Iterator[tuple[Reserve, Floats]]:
        """For each image, or piece: the others in reserve, and what its own images score under the final model."""
        pieces = np.array(self.pieces or [str(i) for i in range(len(self.final))])
        for piece in dict.fromkeys(pieces.tolist()):
            others = pieces != piece
            kept = tuple(pieces[others].tolist()) if self.pieces else ()
            yield Reserve(self.folds[:, others], self.final[others], kept), self.final[~others]
