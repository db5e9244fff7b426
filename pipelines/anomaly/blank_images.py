"""Images with hardly any contrast, as a dead lamp makes them: to a model, a picture of nothing may look normal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.verdicts import floats
from pipelines.base.safe_text import plural, some_of

FACT = "contrast"
BLANK = 0.25  # of the contrast that nearly all calibration images have
NEARLY_ALL = 0.99
KEPT = 4  # names: one more than a sentence shows


class BlankImages:
    """Finds the blank images of a run."""

    def __init__(self, calibration: Calibration | None) -> None:
        """Look at what contrast the calibration images have; of older files, which do not say, nothing is found."""
        known = () if calibration is None else calibration.statistics.get(FACT, ())
        self._least = BLANK * float(np.quantile(known, 1 - NEARLY_ALL)) if len(known) else 0.0
        self._count, self._names = 0, list[str]()

    def add(self, ok: pa.Table) -> None:
        """Look at images with a score: columns `path` and `contrast`."""
        if self._least <= 0:
            return
        blank = np.flatnonzero(floats(ok, FACT) < self._least)
        self._count += len(blank)
        self._names += ok["path"].take(blank[: KEPT - len(self._names)]).to_pylist()

    @property
    def warning(self) -> str:
        """Return what to know of them; "" where there are none."""
        if not self._count:
            return ""
        are, their = ("is", "its score says") if self._count == 1 else ("are", "their scores say")
        return (
            f"{plural(self._count, 'image')} {are} blank, or nearly so ({some_of(self._names)}): {their} nothing, and "
            "a blank image may count as normal. Look at lamp, shutter and camera"
        )
