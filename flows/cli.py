"""The command line, the outermost layer. Each command imports its packages when it runs, so --help is instant."""

from __future__ import annotations

import io
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.bench import app as bench_app
from flows.doctor import doctor
from flows.log_lines import let_prefect_speak_json
from flows.models import REF
from flows.models import app as models_app
from flows.options import (
    AgainstName,
    AgainstOption,
    EngineOption,
    FreshOption,
    GroupsOption,
    ModelOption,
    OutOption,
    RateOption,
    StampOption,
    StrengthOption,
    parse_share,
)
from flows.paths import App
from flows.review import recalibrate, review
from flows.streams import log_uncaught, prepare_streams
from flows.terminal import FAULT, SOME_FAILED, tell_end, terminated_as_by_ctrl_c, told_plainly
from pipelines.base.progress import as_json

app = App(
    name="kintsugi", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")


def _tell_version(wanted: bool) -> None:
    """Print the versions that a bug report needs, and exit. ONNX Runtime is not imported for this."""
    if not wanted:
        return
    from importlib.metadata import packages_distributions, version

    from pipelines.base.software import software_version

    runtime = packages_distributions().get("onnxruntime", [])
    runtimes = "".join(f", {name} {version(name)}" for name in dict.fromkeys(runtime))
    typer.echo(f"kintsugi {software_version()} (Python {platform.python_version()}{runtimes})")
    raise typer.Exit


@app.callback()
def kintsugi(
    version: Annotated[  # noqa: ARG001 - its callback ends the command
        bool, typer.Option("--version", help="Print the versions and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Find abnormal images in folders, and restore images: train, register, score, restore, report."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # paths are printed, and not all are text
        sys.stdout.reconfigure(errors="surrogateescape")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder of the demo.")] = Path("demo-out"),
) -> None:
    """Train, register, export, score and report on the bundled images."""
    out = out.resolve()
    os.environ["KINTSUGI_HOME"] = str(out / "home")  # the demo leaves nothing elsewhere, nor on the user's servers
    for server in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"):
        os.environ.pop(server, None)
    with told_plainly():
        from flows.preflight import TO_TRAIN, require

        require(*TO_TRAIN, "prefect")
        from flows.demo import run_demo

        typer.echo(run_demo(out))


@app.command()
def train(
    job: Annotated[Path, typer.Argument(help="Job file (TOML).")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key, such as train.steps=500.")
    ] = None,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Train only if images or job have changed since the last training.")
    ] = False,
    fresh: FreshOption = False,
) -> None:
    """Run one training job, from a folder of images to a registered model."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.preflight import check_job
        from pipelines.jobfile.job import load_job

        asked = load_job(job, overrides or ())
        check_job(asked)
        why = None
        if if_needed:
            from pipelines.data.cache import reading_anew
            from pipelines.training.need import need_of

            with reading_anew(wanted=fresh):
                need = need_of(asked)
            if not need.train:
                typer.echo(f"not trained: {need.reason}")
                return
            why = need.reason
        from pipelines.train import train_model

        result = train_model(asked, why=why, fresh=fresh)
        ref = result.version.ref
        typer.echo(f"registered {ref}{' as champion' if result.promoted else ' (not champion)'}: {result.reason}")
        verb = asked.verb
        typer.echo(f"{verb} a folder:  kintsugi {verb} FOLDER --model {ref} --out DIR")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Images, in sub-folders or not.")],
    model: ModelOption,
    out: OutOption,
    false_alarms: RateOption = None,
    budget: Annotated[
        int | None, typer.Option("--budget", min=1, metavar="N", help="Flag at most the N images that score highest.")
    ] = None,
    false_discoveries: Annotated[
        float | None,
        typer.Option(
            "--false-discoveries",
            parser=parse_share,
            metavar="SHARE",
            help="Share of the flagged images that may be good. Replaces --false-alarms.",
        ),
    ] = None,
    groups: GroupsOption = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Use this calibration.json instead of the model's own.")
    ] = None,
    against: AgainstOption = AgainstName.AUTO,
    all_maps: Annotated[bool, typer.Option("--all-maps", help="Write the heat map of every image.")] = False,
    fresh: FreshOption = False,
    engine: EngineOption = "local",
) -> None:
    """Score every image under a folder: anomaly scores, heat maps, report."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.score_lines import describe_scores
        from pipelines.batch.engines import check_engine
        from pipelines.score import score_folder

        summary = score_folder(
            folder, model, out, false_alarms=false_alarms, budget=budget, false_discoveries=false_discoveries,
            groups=groups, calibration=calibration, all_maps=all_maps, fresh=fresh, against=against.value,
            engine=check_engine(engine),
        )  # fmt: skip
        for line in describe_scores(summary):
            typer.echo(line)
        typer.echo(f"report: {summary.report}")
        _exit_with_failures(summary.failed, summary.files, summary.out)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Images, in sub-folders or not.")],
    model: ModelOption,
    out: OutOption,
    kind: Annotated[
        str,
        typer.Option(
            "--format", metavar="KIND", help="Format of the output files: png, tiff (tif), webp or jpeg (jpg)."
        ),
    ] = "png",
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Compare with the clean images or true labels of the same names here."),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, max=64, help="Number of other likely labellings or colourings to write.")
    ] = 0,
    bits: Annotated[
        int | None,
        typer.Option("--bits", min=8, max=16, help="Bits used in 16-bit files (default: measured on the files)."),
    ] = None,
    gps: Annotated[bool, typer.Option("--gps/--no-gps", help="Keep the GPS position of photographs (EXIF).")] = True,
    strength: StrengthOption = 1.0,
    stamp: StampOption = True,
    fresh: FreshOption = False,
    engine: EngineOption = "local",
) -> None:
    """Restore, colour or label every image under a folder: images with error bars, report."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from pipelines.batch.engines import check_engine
        from pipelines.restore import restore_folder

        summary = restore_folder(
            folder, model, out, kind=kind, reference=reference, samples=samples, bits=bits, gps=gps,
            strength=strength, stamp=stamp, fresh=fresh, engine=check_engine(engine),
        )  # fmt: skip
        done = summary.done
        typer.echo(f"{summary.ok} of {summary.files} images {done}: {summary.out / 'restored'}")
        if summary.psnr is not None:
            before = "" if summary.input_psnr is None else f", {summary.input_psnr:.2f} dB before"
            typer.echo(f"PSNR against the clean images: {summary.psnr:.2f} dB on average{before}")
        if summary.dice is not None:
            typer.echo(f"Dice against the true labels: {summary.dice:.3f} on average")
        typer.echo(f"report: {summary.report}")
        _exit_with_failures(summary.failed, summary.files, summary.out, done)


@app.command()
def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with test/good, test/<defect> and ground_truth/<defect>; with a sub-folder for each class; "
            "with clean or colour images; or with image/ and label/."
        ),
    ],
    model: ModelOption,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep rows, maps, report (anomaly models).")] = None,
    false_alarms: RateOption = None,
    groups: GroupsOption = False,
    levels: Annotated[
        str | None,
        typer.Option("--levels", help="Strengths of damage, such as 15,25,50 (restoration models)."),
    ] = None,
    classical: Annotated[
        str | None,
        typer.Option("--classical", help="Also measure methods without networks: tv,nlm,wavelet,bm3d, or all."),
    ] = None,
    regret: Annotated[
        bool,
        typer.Option(
            "--regret", help="Also rank the images by likelihood regret. Takes seconds for each image; kept in --out."
        ),
    ] = False,
    bound: Annotated[
        int | None,
        typer.Option("--bound", min=1, help="Only measure a lower bound on the log-likelihood, with N samples."),
    ] = None,
    probe: Annotated[
        int | None,
        typer.Option("--probe", min=10, help="Only measure a linear classifier on the latents of N images."),
    ] = None,
    fresh: FreshOption = False,
) -> None:
    """Measure a model: AUROC, AUPRO, false alarms; PSNR, SSIM, error bars; Dice; or accuracy of the classes."""
    kept = "keeps the regrets that were found" if regret and out else "starts from the beginning"
    with told_plainly(stopped=f"the same command {kept}"), terminated_as_by_ctrl_c():
        from flows.preflight import require
        from pipelines.evaluate import evaluate_model
        from pipelines.evaluation.descriptions import describe_evaluation

        if regret or bound or probe:
            require("torch", "timm", *(["sklearn"] if probe else []))
        figures = evaluate_model(
            folder, model, json_path=json_path, levels=levels.split(",") if levels else None,
            classical=classical.split(",") if classical else (), out=out, false_alarms=false_alarms, groups=groups,
            regret=regret, bound=bound, probe=probe, fresh=fresh,
        )  # fmt: skip
        for line in describe_evaluation(figures):
            typer.echo(line)
        if out is not None:
            typer.echo(f"report: {out / 'report.html'}")
        images = figures["n_images"] if "n_images" in figures else figures["n_good"] + figures["n_bad"]
        _exit_with_failures(figures["n_failed"], images + figures["n_failed"], out, "measured")


@app.command()
def sample(
    model: Annotated[str, typer.Argument(metavar="REF", help=f"{REF}.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of images.")] = 64,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for images and overview.")] = Path("samples"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed: each seed gives other images.")] = 0,
    label: Annotated[
        str | None, typer.Option("--label", help="Draw images of one class (models with classes).")
    ] = None,
) -> None:
    """Draw images from a model, to see what it considers normal (models of pixels)."""
    with told_plainly(), terminated_as_by_ctrl_c():
        from flows.preflight import require

        require("torch", "timm")
        from pipelines.sample import sample_images

        typer.echo(f"samples: {sample_images(model, count, out, seed=seed, label=label)}")


@app.command()
def embed(
    folder: Annotated[Path, typer.Argument(help="Images, in sub-folders or not.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="F.parquet", help="The file to write.")],
    neighbours: Annotated[
        bool, typer.Option(help="Find the most similar image, and copies. Quadratic in the number of images.")
    ] = True,
) -> None:
    """Write a model's latents of each image as numbers, the most similar image, and copies."""
    with told_plainly(stopped="the same command starts from the beginning"), terminated_as_by_ctrl_c():
        from pipelines.embed import embed_folder

        summary = embed_folder(folder, model, out, neighbours=neighbours)
        typer.echo(f"{summary.ok} of {summary.files} images embedded, {summary.latents} numbers each: {summary.out}")
        if summary.duplicates is not None:
            typer.echo(f"{summary.duplicates} of them are copies or near copies of another image: see duplicate_of")
        _exit_with_failures(summary.failed, summary.files, None, "embedded")


@app.command()
def explore(
    model: Annotated[str, typer.Argument(metavar="REF", help=f"{REF}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for explore.html and explore.json.")],
    images: Annotated[
        Path | None, typer.Option("--images", help="Images to place among the latents; each sub-folder is one kind.")
    ] = None,
) -> None:
    """Show on one page what a model has learned: samples, the effect of each latent, and where your images lie."""
    with told_plainly(stopped="the same command starts from the beginning"), terminated_as_by_ctrl_c():
        from flows.preflight import require

        require("torch", "timm", "sklearn")
        from pipelines.explore import explore_model

        summary = explore_model(model, out, images=images)
        typer.echo(f"page: {summary.page}")
        _exit_with_failures(summary.failed, summary.files, None, "read")


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="Output folder of a run, finished or not; or a folder of these.")],
) -> None:
    """Rebuild report.html from an output folder, or the history pages of a folder of runs."""
    with told_plainly():
        from pipelines.rebuild import rebuild

        for page in rebuild(out):
            typer.echo(f"report: {page}")


@app.command()
def serve(
    jobs: Annotated[list[Path] | None, typer.Argument(help="Job files, or folders of them (default: ./jobs).")] = None,
) -> None:
    """Run the schedules of job files: training, scoring and restoring. Stop with Ctrl-C."""
    with told_plainly(repeats=True):
        from flows.preflight import require

        require("prefect", "mlflow")
        from flows.schedules import find_jobs
        from flows.serve import serve as serve_jobs

        serve_jobs(find_jobs(jobs or ()))


app.command()(review)
app.command()(recalibrate)
app.command()(doctor)


def _exit_with_failures(failed: int, files: int, out: Path | None, done: str = "scored") -> None:
    if failed:
        where = f"; the reasons are in {out / 'results.csv'} and the report" if out else ""
        tell_end(f"{failed} of {files} files could not be {done}{where}")
        raise typer.Exit(SOME_FAILED)


def main() -> None:
    """Entry point of the `kintsugi` command."""
    prepare_streams()
    let_prefect_speak_json()
    try:
        app()
    except Exception as error:
        if not as_json():
            raise
        log_uncaught(error)
        sys.exit(FAULT)


if __name__ == "__main__":
    main()
