"""Calibration: turn scores into p-values and verdicts at a false-alarm rate.

A "split" calibration promises its rate: the threshold is split-conformal. With n good images that were used for nothing
else, p = (1 + #{calibration score >= s}) / (n + 1) is a valid p-value on average over calibration sets, whatever the
scores' distribution, as long as good images are exchangeable: Vovk, Gammerman, Shafer, "Algorithmic Learning in a
Random World" (2005), chapter 2; Lei et al., "Distribution-free predictive inference for regression" (2018), section
2.2; Bates et al., "Testing for outliers with conformal p-values" (2023), section 2. In a "cross" calibration the scores
are out-of-fold: the formulas are the same, and nothing is proved. `rate_claim` has the words for both.

Belongs to the scoring side: numpy, pydantic and (on demand) scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from pipelines.anomaly.place_quantiles import GoodPlaces
from pipelines.anomaly.rate_claim import OF_FILES, Kind, RateClaim
from pipelines.base.files import TextError, read_text, write_json
from pipelines.errors import CalibrationError

MAP_QUANTILES = ("0.5", "0.99", "0.999", "1.0")
"""Which quantiles of the good images' anomaly maps every file has; newer ones also have `places`."""


def _good_scores(scores: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse scores that cannot be ranked; keep them in ascending order, so that equal sets give equal files."""
    if not scores:
        raise CalibrationError("there are no calibration scores: keep some good images apart and calibrate on them")
    if bad := sum(not math.isfinite(score) for score in scores):
        raise CalibrationError(
            f"{bad} of {len(scores)} calibration scores are not finite numbers: "
            "find the images that the model has no score for, and calibrate without them"
        )
    return tuple(sorted(scores))


def _known_quantiles(quantiles: dict[str, float]) -> dict[str, float]:
    """Accept all of the quantiles or none (a model without a map), and only in rising order."""
    if not quantiles:
        return quantiles
    if set(quantiles) != set(MAP_QUANTILES):
        raise CalibrationError(f"map_quantiles has {sorted(quantiles)}, expected {list(MAP_QUANTILES)} or nothing")
    values = [quantiles[key] for key in MAP_QUANTILES]
    if values != sorted(values):
        raise CalibrationError(f"map_quantiles must rise with their key, got {values}: compute them again")
    return dict(zip(MAP_QUANTILES, values, strict=True))


def _good_groups(groups: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The groups in order, each with its scores in order."""
    return {name: _good_scores(groups[name]) for name in sorted(groups)}


class Calibration(RateClaim):
    """The scores of good images that belong to one model file: held-out images (split), or out-of-fold scores (cross).

    All else (p-values, threshold, interval) follows from them, so the rate asked can change without a new export.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model_sha256: str
    scores: Annotated[tuple[float, ...], AfterValidator(_good_scores)]
    map_quantiles: Annotated[dict[str, FiniteFloat], AfterValidator(_known_quantiles)]
    false_alarms: Annotated[float, Field(gt=0, lt=1)] | None = None  # the rate that the job asked for
    statistics: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)  # of the same images, for `drift`
    places: GoodPlaces | None = None  # values of their maps; older files have four quantiles alone
    local_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of good places beyond which one is abnormal, of a model of windows: their images have very many places."""
    groups: Annotated[dict[str, tuple[float, ...]], AfterValidator(_good_groups)] = Field(default_factory=dict)
    """The same scores by group: the first sub-folder below the training folder, "" for none. Empty: one group alone."""
    provider: str | None = None
    """Which part of ONNX Runtime made the scores, such as CPUExecutionProvider; older files do not say."""

    @model_validator(mode="after")
    def _groups_are_the_scores(self) -> Self:
        if self.groups and tuple(sorted(score for scores in self.groups.values() for score in scores)) != self.scores:
            raise CalibrationError("the groups' scores are not the scores: calibrate again")
        return self

    @model_validator(mode="after")
    def _folds_are_of_the_kind(self) -> Self:
        if self.kind == "cross" and (self.folds is None or self.folds < 2):
            raise CalibrationError(f"a cross calibration has 2 folds or more, not {self.folds}: calibrate again")
        if self.kind == "split" and self.folds is not None:
            raise CalibrationError(f"a split calibration has no folds, but this one has {self.folds}: calibrate again")
        return self

    @property
    def n(self) -> int:
        """Number of calibration images."""
        return len(self.scores)

    @property
    def smallest_rate(self) -> float:
        """The smallest false-alarm rate that n images can tell, 1/(n+1)."""
        return 1 / (self.n + 1)

    def of_group(self, name: str) -> Calibration | None:
        """The calibration by one group's images alone; None where none is known of it."""
        return self.of_groups([name])

    def of_groups(self, names: Iterable[str]) -> Calibration | None:
        """The calibration by these groups' images together; None where none is known of any."""
        scores = tuple(score for name in names for score in self.groups.get(name, ()))
        if not scores:
            return None
        return self.with_scores(scores)

    def with_scores(self, scores: tuple[float, ...]) -> Calibration:
        """Return a calibration of the same model and kind by some of its scores."""
        return Calibration(
            model_sha256=self.model_sha256, scores=scores, map_quantiles=self.map_quantiles, kind=self.kind,
            folds=self.folds,
        )  # fmt: skip

    @cached_property
    def _ascending(self) -> NDArray[np.float64]:
        return np.array(self.scores, dtype=np.float64)

    def recast(
        self, kind: Kind, move: Callable[[NDArray[np.float64], str | None], NDArray[np.float64]] | None = None
    ) -> Calibration:
        """Return the same good images, as they judge a run whose images are not like them.

        Args:
            kind: "folder" or "drifted".
            move: From scores, and the group that they are of (None: of all), to scores on the scale of the run.
        """
        changed: dict[str, Any] = {"kind": kind, "measured": None}
        if move is not None:
            groups = {name: tuple(np.sort(move(np.array(of), name)).tolist()) for name, of in self.groups.items()}
            every = [score for of in groups.values() for score in of] if groups else move(self._ascending, None)
            changed |= {"groups": groups, "scores": tuple(np.sort(np.array(every)).tolist())}
        made = self.model_copy(update=changed)
        made.__dict__.pop("_ascending", None)
        return made

    def p_values(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """How often a good image scores this high or higher.

        Args:
            scores: Any shape; higher = more abnormal.

        Returns:
            p = (1 + #{calibration score >= s}) / (n + 1), from 1/(n+1) to 1. Ties count against "anomalous".

        Raises:
            CalibrationError: a score is NaN; the message tells which.

        Source: Bates et al. 2023, section 2 (marginal conformal p-values).

        >>> calibration = Calibration(model_sha256="", scores=(1.0, 2.0, 3.0), map_quantiles={})
        >>> calibration.p_values(np.array([0.0, 3.0, 4.0])).tolist()
        [1.0, 0.5, 0.25]
        """
        # float64 throughout: float32 scores widen exactly, so that a calibration image scored again ties with itself.
        values = np.asarray(scores, dtype=np.float64)
        if np.isnan(values).any():
            where = np.flatnonzero(np.isnan(values))
            raise CalibrationError(
                f"{where.size} of {values.size} scores are NaN (the first at position {where[0]}): "
                "a score that is not a number has no p-value; list that image as failed"
            )
        as_high = self.n - np.searchsorted(self._ascending, values, side="left")
        return np.asarray((1 + as_high) / (self.n + 1), dtype=np.float64)

    def _count_tolerated(self, alpha: float) -> int:
        """k: how many calibration scores may lie above the threshold, k = floor(alpha * (n + 1)) - 1.

        The product is rounded (0.29 * 100 < 29; 1/49 * 49 < 1), so the floor is settled by the division that
        `p_values` does: score > threshold and p <= alpha are then the same verdict, to the bit.
        """
        check_rate(alpha)
        slots = self.n + 1
        rank = math.floor(alpha * slots)
        if (rank + 1) / slots <= alpha:
            rank += 1
        elif rank / slots > alpha:
            rank -= 1
        if rank < 1:
            smallest = math.ceil(1e6 / slots) / 1e6  # rounded up: the number we print must be one that we accept
            unfit = "cannot be promised" if self.is_proved else "cannot be told"
            raise CalibrationError(
                f"a false-alarm rate of {alpha:g} {unfit} from {self.n} calibration images, the smallest is "
                f"1/{slots} = {smallest:g}: ask for that or more, or calibrate on {np.ceil(1 / alpha) - 1:.0f} images"
            )
        return rank - 1

    def threshold(self, alpha: float) -> float:
        """The score above which an image is flagged.

        Args:
            alpha: False-alarm rate asked, 1/(n+1) <= alpha < 1. Of the kind "split", the share of good images flagged
                is at most this, on average over calibration sets.

        Returns:
            The (k+1)-th largest calibration score, k = floor(alpha * (n + 1)) - 1. Flagged means strictly above it, so
            ties make the rate lower, never higher.

        Raises:
            CalibrationError: alpha is out of range; the message tells n and the smallest rate that n allows.

        Source: Lei et al. 2018, theorem 2.2.

        >>> Calibration(model_sha256="", scores=(1.0, 2.0, 3.0, 4.0), map_quantiles={}).threshold(0.4)
        3.0
        """
        return self.scores[self.n - 1 - self._count_tolerated(alpha)]

    def default_false_alarms(self) -> float:
        """The rate when a run asks for none: the job's, else 0.01 or the smallest that n allows if more."""
        return max(0.01, self.smallest_rate) if self.false_alarms is None else self.false_alarms

    def interval(self, alpha: float, n_test: int, level: float = 0.95) -> tuple[float, float]:
        """Where the false-alarm rate seen on n_test further good images should lie.

        A split calibration keeps its promise on average over calibration sets. For this one, the true rate is a draw
        from Beta(k + 1, n - k), and the number of false alarms among n_test good images is
        BetaBinomial(n_test, k + 1, n - k). With tied scores the rate lies lower still. Of a cross calibration this is
        not proved: it would hold if the scores were those of the deployed model, which `condition` says in words.

        Args:
            alpha: False-alarm rate asked.
            n_test: Number of good images looked at, at least 1.
            level: Probability of the interval, in (0, 1).

        Returns:
            (low, high), shares of n_test. At most (1 - level) / 2 of the probability lies beyond either end.

        Raises:
            CalibrationError: alpha, n_test or level is out of range.

        Source: Vovk, "Conditional validity of inductive conformal predictors" (2012); Angelopoulos and Bates,
        "Conformal prediction: a gentle introduction" (2023), section 3.2 and appendix C.
        """
        if n_test < 1:
            raise CalibrationError(f"an interval for {n_test} good images is empty: at least 1 is needed")
        if not 0 < level < 1:
            raise CalibrationError(f"a level of {level!r} is not between 0 and 1: use 0.95, say")
        above = self._count_tolerated(alpha) + 1
        cdf = beta_binomial_cdf(n_test, above, self.n + 1 - above)
        tail = (1 - level) / 2
        low, high = np.searchsorted(cdf, [tail, 1 - tail])
        return float(low / n_test), float(min(high, n_test) / n_test)

    @classmethod
    def load(cls, path: Path, *, model_sha256: str) -> Self:
        """Read `calibration.json`.

        Args:
            path: The file.
            model_sha256: Digest of the ONNX file that it is to be used with.

        Raises:
            CalibrationError: the file cannot be read, is not a calibration, or belongs to another model file.
        """
        again = "calibrate the model again, or name another file"
        try:
            calibration = cls.model_validate_json(read_text(path), strict=True)
        except OSError as error:
            raise CalibrationError(f"{path} cannot be read ({error.strerror or error}): {again}") from error
        except TextError as error:
            raise CalibrationError(f"{path} is not a calibration file (it {error}): {again}") from error
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            what = f"{place}: {first['msg']}" if place else first["msg"]
            raise CalibrationError(f"{path} is not a calibration file ({what}): {again}") from error
        if calibration.kind not in OF_FILES:
            raise CalibrationError(f"{path} is of the kind '{calibration.kind}', which is of a run alone: {again}")
        if calibration.model_sha256 != model_sha256:
            raise CalibrationError(
                f"{path} belongs to the model file {calibration.model_sha256[:12]}, not to {model_sha256[:12]}: "
                f"a threshold holds for one exported file only; {again}"
            )
        return calibration

    def save(self, path: Path) -> None:
        """Write the file whole or not at all; equal calibrations give equal bytes, every float reads back as it was."""
        write_json(path, self.model_dump(exclude_none=True), indent=1)


def check_rate(alpha: float) -> None:
    """Refuse a rate that is not between 0 and 1.

    Raises:
        CalibrationError: It is not.
    """
    if not 0 < alpha < 1:
        raise CalibrationError(f"a false-alarm rate of {alpha!r} is not between 0 and 1: 0.01 means 1 %")


def beta_binomial_cdf(n: int, a: float, b: float) -> NDArray[np.float64]:
    """Distribution function of BetaBinomial(n, a, b) at 0, 1, ..., n.

    Written out, since importing `scipy.stats` takes seconds.

    Source: pmf(x) = C(n, x) B(x + a, n - x + b) / B(a, b); Johnson, Kemp, Kotz, "Univariate Discrete Distributions"
    (2005), section 6.2.2.
    """
    from scipy.special import betaln

    x = np.arange(n + 1, dtype=np.float64)
    log_choose = -np.log(n + 1.0) - betaln(n - x + 1, x + 1)
    return np.asarray(np.cumsum(np.exp(log_choose + betaln(x + a, n - x + b) - betaln(a, b))), dtype=np.float64)
