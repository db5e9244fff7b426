"""The benchmark of anomaly detection: methods x seeds on one data set, each in its own process, into one table.

dataset -> view of a half -> cells, those that are finished left out -> means and spreads -> bench.json, bench.md
"""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from pipelines.base.cores import usable_cores
from pipelines.base.files import make_folders, write_atomically, write_json
from pipelines.base.locks import locked
from pipelines.batch.output_folder import check_writable
from pipelines.bench.anomalib_environment import MissingEnvironmentError, find_anomalib
from pipelines.bench.cells import Cell, Result, Setup
from pipelines.bench.dataset import Half, check_layout, fingerprint, published_for, view_of
from pipelines.bench.jobs import check_overrides
from pipelines.bench.methods import DEFAULT, Method, choose_methods
from pipelines.bench.summary import as_published, choose_baseline, compute_ratios, format_page, summarise
from pipelines.errors import OutputError
from pipelines.settings import settings

log = logging.getLogger(__name__)
SEEDS = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """What a benchmark has to say."""

    out: Path
    document: dict[str, Any]  # bench.json
    text: str  # bench.md
    failed: int  # cells


def bench_anomaly(
    dataset: Path | str,
    out: Path | str,
    *,
    methods: Sequence[str] = DEFAULT,
    seeds: int = SEEDS,
    half: Half = "all",
    overrides: Sequence[str] = (),
    max_train: int | None = None,
    fresh: bool = False,
) -> Bench:
    """Train and evaluate methods on one data set, and compare them.

    A method with a seed that is finished in the output folder, with the same images and settings, is not run again: the
    same call goes on where a stopped one was, and tries again what failed.

    Args:
        dataset: In the MVTec layout.
        out: Output folder: new, or of an earlier benchmark.
        methods: Names from `pipelines.bench.methods`.
        seeds: 0 to `seeds` - 1 are run; methods without randomness only 0.
        half: The test images that count: a fixed half by content, or all. What is chosen on one half can be reported on
            the other; a model that was trained for one is used for the other.
        overrides: `key=value` pairs of the job file: they decide size, backbone and splits of all rows, or of one
            where its name comes first, as in `pixel_vae.model.size=96`.
        max_train: Most good images that are used, all splits together.
        fresh: Forget the runs of an earlier benchmark, of the methods and seeds that are asked for.

    Returns:
        Figures and table, as written to `bench.json` and `bench.md`.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole. A method that fails is a row that says so.
    """
    dataset, out = Path(dataset).resolve(), Path(out).resolve()
    rows = choose_methods(methods)
    check_layout(dataset)
    _open(out)
    try:
        with locked(out / "lock", wait=False):
            check_overrides(overrides, rows, out, dataset / "train" / "good")
            setup = Setup(
                dataset=dataset,
                fingerprint=fingerprint(dataset),
                view=view_of(dataset, half, out / "views"),
                half=half,
                overrides=tuple(overrides),
                max_train=max_train,
                out=out,
                anomalib_home=settings().home.resolve() / "environments",
            )
            return _run(setup, rows, seeds, fresh=fresh)
    except BlockingIOError:
        msg = f"another benchmark is writing to {out}: wait for it, or give another --out"
        raise OutputError(msg) from None


def _open(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / "lock").is_file():
        msg = f"the output folder {out} holds something that is no benchmark: give a new folder"
        raise OutputError(msg)
    check_writable(out)
    make_folders(out)


def _run(setup: Setup, rows: Sequence[Method], seeds: int, *, fresh: bool) -> Bench:
    # All methods with one seed, then all with the next: a run that is stopped early has compared all of them.
    cells = [Cell(setup, method, seed) for seed in range(seeds) for method in rows if method.random or seed == 0]
    results: list[tuple[Cell, Result]] = []
    if fresh:
        shutil.rmtree(setup.out / "home" / "cache", ignore_errors=True)  # images are found in it by size and time
        for cell in cells:
            cell.forget()
    for number, cell in enumerate(cells, start=1):
        title = f"{cell.method.name}, seed {cell.seed} ({number} of {len(cells)})"
        found = cell.read_result()
        if found is None:
            log.info("%s: started", title)
            found = _measure(cell)
        else:
            log.info("%s: finished before", title)
        log.info("%s: %s", title, _describe(found))
        results.append((cell, found))
        bench = _write(setup, rows, results)
    return bench


def _measure(cell: Cell) -> Result:
    if cell.method.kind == "anomalib":
        try:
            find_anomalib(cell.setup.anomalib_home)
        except MissingEnvironmentError as error:
            return cell.record_failure(str(error))
    return cell.run()


def _describe(result: Result) -> str:
    if result["status"] != "ok":
        return f"failed: {result['reason']}"
    return f"image AUROC {result['figures']['image_auroc']:.4f}, trained in {result['train_seconds']:.0f} s"


def _write(setup: Setup, rows: Sequence[Method], results: Sequence[tuple[Cell, Result]]) -> Bench:
    """The table so far."""
    table = {
        method.name: summarise(method, [result for cell, result in results if cell.method is method]) for method in rows
    }
    done = next((result for _, result in results if result["status"] == "ok"), None)
    counts = done and {"n_train": done["n_train"], **{name: done["figures"][name] for name in ("n_good", "n_bad")}}
    document = {
        "dataset": setup.dataset.name,
        "folder": str(setup.dataset),
        "settings": {"half": setup.half, "overrides": list(setup.overrides), "max_train": setup.max_train},
        "images": counts,
        "methods": table,
        "baseline": choose_baseline(table),
        "ratios": compute_ratios(table),
        "published": as_published(published_for(setup.dataset)),
        "cells": [_without_curve(result) for _, result in results],
        "machine": {"cores": usable_cores(), "processor": platform.machine(), "system": platform.system()},
        "versions": {
            name: installed_version(name) for name in ("kintsugi", "torch", "timm", "onnxruntime-gpu", "numpy")
        },
    }
    text = format_page(document)
    write_json(setup.out / "bench.json", document)
    write_atomically(setup.out / "bench.md", lambda path: path.write_text(text, encoding="utf-8"))
    failed = sum(result["status"] != "ok" for _, result in results)
    return Bench(setup.out, document, text, failed)


def _without_curve(result: Result) -> Result:
    """A cell without the points of its ROC curve, which are in its own file."""
    if "figures" not in result:
        return result
    return result | {"figures": {name: value for name, value in result["figures"].items() if name != "roc"}}
