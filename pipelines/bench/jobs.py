"""The job behind every row: the same images, the same splits, and for the same target the same choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.base.files import write_atomically
from pipelines.bench.methods import METHODS, Method
from pipelines.errors import JobError
from pipelines.jobfile.job import Job, load_job, to_toml

SET_BY_BENCH = {
    "name": "the registry is the bench's own",
    "task": "the bench is of anomaly detection",
    "data.train": "it is the data set's train/good",
    "data.max_images": "use --max-train",
    "train.seed": "use --seeds",
}
"""Keys that --set cannot replace, and why."""

MODEL = "model."
"""Keys that rows on pixels leave aside; those of the other tables hold for every row that has such a thing."""


def overrides_for(method: Method, overrides: Sequence[str]) -> list[str]:
    """Those that hold for one row: all that name no row, and those that name it, which come last and win.

    >>> overrides_for(METHODS[0], ["ours.model.size=96", "train.steps=9", "knn.train.steps=5"])
    ['train.steps=9', 'model.size=96']
    """
    shared = [override for override in overrides if _row_of(override) is None]
    own = [
        override.strip().partition(".")[2]
        for override in overrides
        if _row_of(override) in (method.name, method.asked_as)
    ]
    return shared + own


def check_overrides(overrides: Sequence[str], methods: Sequence[Method], folder: Path, train: Path) -> None:
    """Find mistakes before anything is trained.

    Raises:
        JobError: A key is not known, has a value that it cannot have, or is the bench's to set.
    """
    for method in methods:
        mine = overrides_for(method, overrides)
        for override in mine:
            key = override.partition("=")[0].strip()
            if key in SET_BY_BENCH:
                msg = f"--set {key} has no place here: {SET_BY_BENCH[key]}"
                raise JobError(msg)
        write_job_file(folder / "job.toml", name="check", train=train, overrides=mine)


def _row_of(override: str) -> str | None:
    """The row that a key such as `ours.train.steps` begins with."""
    first = override.strip().partition(".")[0]
    return first if any(first in (method.name, method.asked_as) for method in METHODS) else None


def write_job_file(
    path: Path, *, name: str, train: Path, seed: int = 0, max_train: int | None = None, overrides: Sequence[str] = ()
) -> Job:
    """Write the job of a cell, so that `kintsugi train` can repeat it, and read it back.

    Args:
        path: Where.
        name: Of the model.
        train: Folder of good images.
        seed: Of training.
        max_train: Most good images; they are then divided into the splits.
        overrides: `key=value` pairs, applied on top.

    Raises:
        JobError: As for `load_job`.
    """
    lines = [f"name = {to_toml(name)}", 'task = "reconstruct"', "[data]", f"train = {to_toml(str(train))}"]
    if max_train is not None:
        lines.append(f"max_images = {max_train}")
    lines += ["[train]", f"seed = {seed}", ""]
    try:
        write_atomically(path, lambda temporary: temporary.write_text("\n".join(lines), encoding="utf-8"))
    except UnicodeEncodeError:
        raise JobError(f"{train!r} is not UTF-8 text, which a job file is: rename it") from None
    return load_job(path, overrides)


def for_pixels(method: Method, overrides: Sequence[str], size: tuple[int, int]) -> list[str]:
    """The same for a row on pixels: at the features' working size, without what is meant for all rows' features."""
    shared = [
        override for override in overrides if _row_of(override) is None and not override.strip().startswith(MODEL)
    ]
    own = [override for override in overrides if _row_of(override) is not None]
    return overrides_for(method, [*shared, f"{MODEL}target=pixels", f"{MODEL}size=[{size[0]}, {size[1]}]", *own])
