"""The benchmark of anomaly detection: methods x seeds on data sets, each in its own process, into one table.

data set -> view of a half -> cells, those that are finished left out -> means and spreads -> bench.json, bench.md;
several data sets: the same in a folder of each, and one table of all of them
"""

from __future__ import annotations

import contextlib
import logging
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from pipelines.base.cores import usable_cores
from pipelines.base.files import make_folders, write_atomically, write_json
from pipelines.base.locks import locked
from pipelines.base.software import software_version
from pipelines.batch.output_folder import check_writable
from pipelines.bench.anomalib_environment import MissingEnvironmentError, find_anomalib
from pipelines.bench.cells import Cell, Result, Setup
from pipelines.bench.dataset import Half, check_layout, fingerprint, published_for, view_of
from pipelines.bench.given_scores import GivenScores, Seeds, read_given_scores, write_scores
from pipelines.bench.jobs import check_overrides
from pipelines.bench.joint import format_joint_page, join
from pipelines.bench.methods import DEFAULT, Method, choose_methods
from pipelines.bench.page import format_page
from pipelines.bench.paired_bootstrap import Samples, compare, sample_figures
from pipelines.bench.summary import as_published, choose_baseline, compute_ratios, summarise
from pipelines.errors import JobError, OutputError
from pipelines.settings import settings

log = logging.getLogger(__name__)
SEEDS = 3
KEPT_APART = ("scores", "calibration")  # of a cell: in its own file, not in bench.json


@dataclass(frozen=True, slots=True)
class Bench:
    """What a benchmark has to say."""

    out: Path
    document: dict[str, Any]  # bench.json
    text: str  # bench.md
    failed: int  # cells


def bench_anomaly(
    datasets: Sequence[Path | str],
    out: Path | str,
    *,
    methods: Sequence[str] = DEFAULT,
    seeds: int = SEEDS,
    half: Half = "all",
    overrides: Sequence[str] = (),
    max_train: int | None = None,
    scores: Sequence[str] = (),
    fresh: bool = False,
) -> Bench:
    """Train and evaluate methods on data sets, and compare them.

    A method with a seed that is finished in the output folder, with the same images and settings, is not run again: the
    same call goes on where a stopped one was, and tries again what failed.

    Args:
        datasets: In the MVTec layout; one or more, whose folders have different names.
        out: Output folder: new, or of an earlier benchmark. Several data sets have a folder each in it.
        methods: Names from `pipelines.bench.methods`.
        seeds: 0 to `seeds` - 1 are run; methods without randomness only 0.
        half: The test images that count: a fixed half by content, or all. What is chosen on one half can be reported on
            the other; a model that was trained for one is used for the other.
        overrides: `key=value` pairs of the job file: they decide size, backbone and splits of all rows, or of one
            where its name comes first, as in `pixel_vae.model.size=96`.
        max_train: Most good images that are used, all splits together.
        scores: `NAME=FILE`: rows that are not run, from scores of the same test images (`pipelines.bench.given_scores`
            shows the form). `scores-ROW.json` in the output folder of any benchmark is such a file.
        fresh: Forget the runs of an earlier benchmark, of the methods and seeds that are asked for.

    Returns:
        Figures and table, as written to `bench.json` and `bench.md`: of several data sets the joint ones.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole. A method that fails is a row that says so.
    """
    folders, out = [Path(dataset).resolve() for dataset in datasets], Path(out).resolve()
    rows, given = choose_methods(methods), read_given_scores(scores)
    names = [folder.name for folder in folders]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise JobError(f"two data sets are named '{twice}', as the folders of their results would be: rename one")
    for folder in folders:
        check_layout(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_opened(out))
        setups = []
        for folder in folders:  # mistakes in any of them are found before the first is measured
            place = out
            if len(folders) > 1:
                place = out / folder.name
                stack.enter_context(_opened(place))
            check_overrides(overrides, rows, place, folder / "train" / "good")
            setup = Setup(
                dataset=folder,
                fingerprint=fingerprint(folder),
                view=view_of(folder, half, place / "views"),
                half=half,
                overrides=tuple(overrides),
                max_train=max_train,
                out=place,
                anomalib_home=settings().home.resolve() / "environments",
            )
            for each in given:
                each.check_images(folder.name, setup.view)
            setups.append(setup)
        measured: dict[str, _Measured] = {}
        for setup in setups:
            log.info("data set %s (%d of %d)", setup.dataset.name, len(measured) + 1, len(setups))
            measured[setup.dataset.name] = _run(setup, rows, seeds, given, fresh=fresh)
            bench = _write_joint(out, measured) if len(setups) > 1 else measured[setup.dataset.name].bench
        return bench


@contextlib.contextmanager
def _opened(out: Path) -> Iterator[None]:
    """Make an output folder, or open that of an earlier benchmark, and hold its lock."""
    if out.is_dir() and any(out.iterdir()) and not (out / "lock").is_file():
        msg = f"the output folder {out} holds other files than a benchmark: give a new folder"
        raise OutputError(msg)
    check_writable(out)
    make_folders(out)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out / "lock", wait=False))
        except BlockingIOError:
            msg = f"another benchmark is writing to {out}: wait for it, or give another --out"
            raise OutputError(msg) from None
        yield


@dataclass(frozen=True, slots=True)
class _Measured:
    """One data set."""

    bench: Bench
    scores: dict[str, Seeds]  # of each row
    samples: dict[str, Samples]  # of each row


def _run(setup: Setup, rows: Sequence[Method], seeds: int, given: Sequence[GivenScores], *, fresh: bool) -> _Measured:
    # All methods with one seed, then all with the next: a run that is stopped early has compared all of them.
    cells = [Cell(setup, method, seed) for seed in range(seeds) for method in rows if method.random or seed == 0]
    every = {method.name: method for method in (*rows, *(each.method for each in given))}
    of_others = [result for each in given for result in each.results(setup.dataset.name)]
    results: list[Result] = []
    if fresh:
        shutil.rmtree(setup.out / "home" / "cache", ignore_errors=True)  # images are found in it by size and time
        for cell in cells:
            cell.forget()
    for number, cell in enumerate(cells, start=1):
        title = f"{cell.method.name}, seed {cell.seed} ({number} of {len(cells)})"
        found = cell.read_result()
        if finished := found is not None:
            log.info("%s: finished before", title)
        else:
            log.info("%s: started", title)
            found = _measure(cell)
        log.info("%s: %s", title, _describe(found))
        results.append(found)
        if not finished or cell is cells[-1]:
            measured = _write(setup, every, [*results, *of_others])
    return measured


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


def _write(setup: Setup, rows: dict[str, Method], results: Sequence[Result]) -> _Measured:
    """The table so far."""
    of_rows = {name: [result for result in results if result["method"] == name] for name in rows}
    scores = {name: [result["scores"] for result in each if result["status"] == "ok"] for name, each in of_rows.items()}
    samples = sample_figures(setup.dataset.name, scores)
    table = {name: summarise(rows[name], each) for name, each in of_rows.items()}
    done = next((result for result in results if result["status"] == "ok" and result["n_train"]), None)
    counts = done and {"n_train": done["n_train"], **{name: done["figures"][name] for name in ("n_good", "n_bad")}}
    document = {
        "dataset": setup.dataset.name,
        "folder": str(setup.dataset),
        "settings": {"half": setup.half, "overrides": list(setup.overrides), "max_train": setup.max_train},
        "images": counts,
        "methods": table,
        "baseline": choose_baseline(table),
        "ratios": compute_ratios(table),
        "comparisons": compare({setup.dataset.name: samples}),
        "published": as_published(published_for(setup.dataset)),
        "cells": [_without_lists(result) for result in results],
        "machine": {"cores": usable_cores(), "processor": platform.machine(), "system": platform.system()},
        "versions": {
            "kintsugi": software_version(),
            **{name: installed_version(name) for name in ("torch", "timm", "onnxruntime-gpu", "numpy")},
        },
    }
    failed = sum(result["status"] != "ok" for result in results)
    bench = _keep(setup.out, document, format_page(document), failed)
    write_scores(setup.out, {setup.dataset.name: scores})
    return _Measured(bench, scores, samples)


def _write_joint(out: Path, measured: dict[str, _Measured]) -> Bench:
    """The table of all data sets so far."""
    document = join(
        {name: each.bench.document for name, each in measured.items()},
        {name: each.samples for name, each in measured.items()},
    )
    write_scores(out, {name: each.scores for name, each in measured.items()})
    return _keep(out, document, format_joint_page(document), sum(each.bench.failed for each in measured.values()))


def _keep(out: Path, document: dict[str, Any], text: str, failed: int) -> Bench:
    write_json(out / "bench.json", document)
    write_atomically(out / "bench.md", lambda path: path.write_text(text, encoding="utf-8"))
    return Bench(out, document, text, failed)


def _without_lists(result: Result) -> Result:
    """A cell without the points of its ROC curve and without scores, which are in its own file."""
    rest = {name: value for name, value in result.items() if name not in KEPT_APART}
    if "figures" in rest:
        rest["figures"] = {name: value for name, value in result["figures"].items() if name != "roc"}
    return rest
