"""What is compared: one record for each row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import JobError

ANOMALIB = "2.7.0"
"""The release that is installed for its rows: the latest that installs beside our torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row. What is not said here (backbone, size, splits) is the job's, the same for all rows."""

    name: str  # of the row, in files and on the command line
    title: str  # in the table
    kind: Literal["job", "memory", "autoencoder", "anomalib", "given"]  # given: scores from a file, nothing is run
    family: str = ""  # what --methods calls it, where several rows go together
    target: Literal["features", "pixels"] = "features"
    strides: tuple[int, ...] | None = None  # of the backbone, where they are not the job's
    rule: str = ""  # of anomalib: patchcore, padim; of autoencoder: the loss
    random: bool = True  # False: every seed gives the same, so that one is enough

    @property
    def asked_as(self) -> str:
        """The name that the command line takes."""
        return self.family or self.name


def _of_anomalib(rule: str, name: str) -> tuple[Method, Method]:
    title = f"{name} (anomalib {ANOMALIB})"
    return (
        Method(name=rule, title=f"{title}, strides 8 and 16", kind="anomalib", family=rule, strides=(8, 16), rule=rule),
        Method(name=f"{rule}_16", title=f"{title}, stride 16", kind="anomalib", family=rule, strides=(16,), rule=rule),
    )


METHODS: tuple[Method, ...] = (
    Method(name="ours", title="Kintsugi: ELBO on features, exported file", kind="job"),
    *_of_anomalib("patchcore", "PatchCore"),
    *_of_anomalib("padim", "PaDiM"),
    Method(name="knn", title="nearest neighbour on the same features", kind="memory", random=False),
    Method(name="autoencoder_l2", title="autoencoder, L2", kind="autoencoder", target="pixels", rule="l2"),
    Method(name="autoencoder_ssim", title="autoencoder, SSIM", kind="autoencoder", target="pixels", rule="ssim"),
    Method(name="pixel_vae", title="Kintsugi: ELBO on pixels, exported file", kind="job", target="pixels"),
)

DEFAULT = ("ours", "patchcore", "padim", "knn", "autoencoder_l2", "autoencoder_ssim", "pixel_vae")
BASELINES = ("patchcore", "knn")
"""The first of these that has figures is what ratios are against; else the first row that is not ours."""


def method_of(name: str) -> Method:
    """The row of that name."""
    return next(method for method in METHODS if method.name == name)


def choose_methods(names: Sequence[str]) -> list[Method]:
    """The rows that the command line asks for, in its order, each once.

    Raises:
        JobError: There is no such method; the message lists them.
    """
    families = {method.asked_as for method in METHODS}
    known = families | {method.name for method in METHODS}
    if unknown := [name for name in names if name not in known]:
        in_order = dict.fromkeys(method.asked_as for method in METHODS)
        msg = f"there is no method '{unknown[0]}'; there are: {', '.join(in_order)}"
        raise JobError(msg)
    if not names:
        msg = f"no methods are named: leave --methods out for {', '.join(DEFAULT)}"
        raise JobError(msg)
    rows = {
        method.name: method
        for name in names
        for method in METHODS
        if name == (method.asked_as if name in families else method.name)
    }
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class Published:
    """A figure from the literature, for a row that is not run."""

    title: str
    image_auroc: float


PUBLISHED = {
    "magnetic_tile": (
        Published("GANomaly", 0.766),
        Published("1-NN", 0.800),
        Published("DifferNet", 0.977),
        Published("PatchCore (WideResNet50)", 0.979),
    )
}
"""By the name of the data set's folder, as given by Roth et al. 2022 for an 80/20 split of the good images."""
