"""What may be said of a false-alarm rate: what is proved and what is measured, never one figure for both.

*split*: the calibration images were used for nothing else. Proved: on average over calibration sets, at most the rate
asked of good images like these is flagged (Vovk, Gammerman, Shafer 2005; Lei et al. 2018).

*cross*: K folds over all good images. Every step of training is repeated in each fold, each image is scored by the
fold model that has not seen it, and a model refitted on all images is deployed. Proved: nothing. The scores are those
of cross-conformal predictors (Vovk, "Cross-conformal predictors", 2015), but the bound of CV+, 2 alpha and a term that
vanishes with the number of images, holds where the K fold models judge together, not for a refit (Barber, Candes,
Ramdas, Tibshirani, "Predictive inference with the jackknife+", 2021, theorem 4). A refit has seen more images, and new
good ones score lower under it: images in reserve, which none has seen, tell how much, and put the scores on its scale.
What is known instead of a proof is measured: the rate on the images in reserve, each judged on the scale that the
others set.

Two more kinds are of a run, never of a file. *folder*: the calibration scores were put where most of a folder's own
images lie (`folder_scale`); the rate is estimated. *drifted*: the images were found to be unlike the calibration
images, so that their scores judge, and no rate is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.base.percentages import percent, promised

Kind = Literal["split", "cross", "folder", "drifted"]
OF_FILES: tuple[Kind, ...] = ("split", "cross")

ASSUMPTION = "if the calibration scores were those of the deployed model"
"""What an interval for the realised rate rests on where calibration is of the kind "cross"."""
OF_A_FOLDER = ", if most images of the folder are good"
OF_OTHERS = ", if these images were like the calibration images, which they are not"


class Measured(BaseModel):
    """False alarms counted on good images in reserve: no model was fitted to them, and no threshold that judged them.

    Attributes:
        rate: The false-alarm rate asked when they were judged, in (0, 1).
        images: Number of these images, at least 1.
        flagged: How many of them scored above the threshold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Annotated[float, Field(gt=0, lt=1)]
    images: Annotated[int, Field(ge=1)]
    flagged: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _no_more_are_flagged_than_there_are(self) -> Self:
        if self.flagged > self.images:
            msg = f"{self.flagged} of {self.images} images cannot have been flagged: measure the rate again"
            raise ValueError(msg)
        return self

    @property
    def share(self) -> float:
        """The realised false-alarm rate, in [0, 1]."""
        return self.flagged / self.images

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the exact interval of the rate that was measured.

        Args:
            level: Probability, at least, that the interval covers the rate, in (0, 1).

        Returns:
            (low, high) in [0, 1], with at most (1 - level) / 2 of the probability beyond either end.

        Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial"
        (1934).

        >>> [round(end, 4) for end in Measured(rate=0.01, images=100, flagged=2).interval()]
        [0.0024, 0.0704]
        """
        from scipy.special import betaincinv  # takes long to import, and most runs need none

        tail, normal = (1 - level) / 2, self.images - self.flagged
        low = betaincinv(self.flagged, normal + 1, tail) if self.flagged else 0.0
        high = betaincinv(self.flagged + 1, normal, 1 - tail) if normal else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        """Return the measurement in words.

        >>> print(Measured(rate=0.01, images=100, flagged=2))
        2 of 100 good images in reserve were flagged where 1 % was asked: 2 % (95 % interval 0.24 % to 7 %)
        """
        low, high = (percent(end) for end in self.interval())
        were = "was" if self.flagged == 1 else "were"
        return (
            f"{self.flagged:,} of {self.images:,} good images in reserve {were} flagged where "
            f"{promised(self.rate)} was asked: {percent(self.share)} (95 % interval {low} to {high})"
        )


class RateClaim(BaseModel):
    """What the false-alarm rate of a calibration rests on, and the words that everything uses for it.

    Attributes:
        kind: How the calibration scores came about; files without it are of the kind "split".
        folds: Number of folds, K; None where there are none.
        measured: The realised rate on good images in reserve; None where none were kept.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind = "split"
    folds: int | None = None
    measured: Measured | None = None

    @property
    def is_proved(self) -> bool:
        """Return whether the rate is proved to hold, on average over calibration sets."""
        return self.kind == "split"

    @property
    def is_what(self) -> str:
        """The word before "false-alarm rate": "promised" where it is proved, else "asked", or "estimated"."""
        return {"split": "promised", "folder": "estimated"}.get(self.kind, "asked")

    @property
    def holds(self) -> bool:
        """Return whether the images are like those that the rate was found on, as far as is known."""
        return self.kind != "drifted"

    @property
    def condition(self) -> str:
        """What an interval for the realised rate rests on, to be added to a sentence; empty where it is proved."""
        return {"cross": f", {ASSUMPTION}", "folder": OF_A_FOLDER, "drifted": OF_OTHERS}.get(self.kind, "")

    def describe_proof(self, rate: float) -> str:
        """Return what is proved of a false-alarm rate in (0, 1).

        >>> print(RateClaim().describe_proof(0.01))
        at most 1 % of good images like the calibration images are flagged, on average over calibration sets
        """
        if self.is_proved:
            return (
                f"at most {promised(rate)} of good images like the calibration images are flagged, on average over "
                "calibration sets"
            )
        if self.kind == "folder":
            return (
                "no rate, because the calibration scores were put where most images of this folder lie, which is "
                "where good images lie if most of the images are good"
            )
        if self.kind == "drifted":
            return "no rate, because these images are not like the calibration images"
        models = "other models" if self.folds is None else f"{self.folds} other models"
        return (
            f"no rate, because this model has seen all good images: {models}, each without some of them, gave the "
            'calibration scores. For a proof, set calibrate.kind = "split" in the job file'
        )

    def describe_measured(self) -> str | None:
        """Return what was measured of the false-alarm rate; None where nothing was, and nothing need be."""
        if self.measured is not None:
            return str(self.measured)
        if self.kind != "cross":
            return None
        return "the out-of-fold scores alone: no good images were kept in reserve to count false alarms on"

    def describe(self, rate: float) -> Iterator[tuple[str, str]]:
        """Yield "proved" and "measured", each with its sentence, for cards, reports and logs.

        Args:
            rate: The false-alarm rate asked, in (0, 1).
        """
        yield "proved", self.describe_proof(rate)
        if (measured := self.describe_measured()) is not None:
            yield "measured", measured

    @property
    def claim(self) -> RateClaim:
        """The claim alone, of what is more than that."""
        return RateClaim(kind=self.kind, folds=self.folds, measured=self.measured)
