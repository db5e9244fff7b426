"""`kintsugi bench`: benchmarks that compare Kintsugi with baselines in the same run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.options import FreshOption
from flows.paths import App
from flows.terminal import SOME_FAILED, tell_end, terminated_as_by_ctrl_c, told_plainly

app = App(help="Run benchmarks: Kintsugi and baselines in the same run.", rich_markup_mode=None)


class HalfName(StrEnum):
    """The half of the test images that is used."""

    A = "A"
    B = "B"
    ALL = "all"


@app.callback()
def bench() -> None:
    """Run benchmarks: Kintsugi and baselines in the same run."""


@app.command()
def anomaly(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...",
            help="Folders with train/good, test/good, test/<defect>, ground_truth/<defect>. All go into one table.",
        ),
    ],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds for each method that is random.")] = 3,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Comma-separated. The default is ours, patchcore, padim, knn, autoencoder_l2, autoencoder_ssim, "
            "pixel_vae.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder. A stopped run continues there.")] = Path(
        "bench-out"
    ),
    half: Annotated[
        HalfName,
        typer.Option(
            "--half", help="Use a fixed half of the test images: choose settings on one half, report on the other."
        ),
    ] = HalfName.ALL,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a key of the job. A method's name before the key limits it to that method: "
            "ours.train.steps=500.",
        ),
    ] = None,
    max_train: Annotated[
        int | None,
        typer.Option("--max-train", min=1, help="Use at most this number of good images, all splits together."),
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--scores",
            metavar="NAME=FILE",
            help="Add a row from a file with scores of the same test images, such as scores-ours.json of an earlier "
            'benchmark: {"data set": {"good/1.png": 0.3}}.',
        ),
    ] = None,
    shift: Annotated[
        bool,
        typer.Option(
            "--shift",
            help="Only measure Kintsugi's verdicts after changes of light and camera, by calibration and by folder.",
        ),
    ] = False,
    fresh: FreshOption = False,
) -> None:
    """Compare anomaly detectors on data sets: AUROC, recall, AP, AUPRO, time and memory, over seeds."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.preflight import TO_TRAIN, require

        require(*TO_TRAIN)
        from pipelines.bench.anomaly import bench_anomaly
        from pipelines.bench.methods import DEFAULT

        if shift:
            from pipelines.bench.drift import bench_drift

            measured = bench_drift(
                datasets, out, half=half.value, overrides=overrides or (), max_train=max_train, fresh=fresh
            )
            _print_table(measured.text, measured.out / "drift", measured.failed, "runs failed")
            return
        names = DEFAULT if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
        done = bench_anomaly(
            datasets, out, methods=names, seeds=seeds, half=half.value, overrides=overrides or (), max_train=max_train,
            scores=scores or (), fresh=fresh,
        )  # fmt: skip
        _print_table(done.text, done.out / "bench", done.failed, "runs failed; the same command tries them again")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Clean images. The models' task says how they are damaged.")],
    models: Annotated[list[str], typer.Option("--model", help="A restoration model. The option may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("bench-restore-out"),
    levels: Annotated[str | None, typer.Option("--levels", help="Strengths of damage, such as 15,25,50.")] = None,
    classical: Annotated[
        str, typer.Option("--classical", help="Methods without networks: tv,nlm,wavelet,bm3d; all; or none.")
    ] = "all",
) -> None:
    """Compare restoration models with each other and with methods without networks: PSNR, SSIM, time, operations."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.preflight import TO_TRAIN, require

        require(*TO_TRAIN)
        from pipelines.bench.restoration import bench_restoration

        asked = levels.split(",") if levels else None
        done = bench_restoration(folder, out, models=models, levels=asked, classical=classical)
        _print_table(done.text, done.out / "bench", done.failed, "images could not be read")


@app.command()
def throughput(
    folder: Annotated[Path, typer.Argument(help="Images.")],
    model: Annotated[str, typer.Option("--model", help="An anomaly model, such as tiles@champion.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder. A stopped run continues there.")] = Path(
        "bench-throughput-out"
    ),
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            help="Comma-separated (default: all): ours, naive, limits, anomalib_patchcore, anomalib_padim, "
            "anomalib_stfpm, anomalib_efficientad.",
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Number of images of the folder to use.")] = 1000,
    few: Annotated[
        int, typer.Option("--few", min=1, help="Number of images for the rows of anomalib, which are slow.")
    ] = 200,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Number of runs of each row, in turns. The table has the medians.")
    ] = 5,
    growth: Annotated[
        str | None,
        typer.Option(
            "--growth", help="Also run the batch job once on each of these numbers of images, such as 1000,100000."
        ),
    ] = None,
    fresh: FreshOption = False,
) -> None:
    """Measure how fast a folder is scored, beside a plain loop, each stage alone, and anomalib's own prediction."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.preflight import TO_TRAIN, require

        require(*TO_TRAIN)
        from pipelines.bench.throughput import bench_throughput

        done = bench_throughput(
            folder, out, model=model, lines=rows.split(",") if rows else (), images=images, few=few, runs=runs,
            growth=[int(count) for count in growth.split(",")] if growth else (), fresh=fresh,
        )  # fmt: skip
        _print_table(done.text, done.out / "throughput")


def _print_table(text: str, written: Path, failed: int = 0, what: str = "") -> None:
    typer.echo(text)
    typer.echo(f"written: {written}.md, {written}.json")
    if failed:
        tell_end(f"{failed} {what}")
        raise typer.Exit(SOME_FAILED)
