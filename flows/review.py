"""The commands `review` (a local page on which people say what images show) and `recalibrate`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import RateOption
from flows.terminal import terminated_as_by_ctrl_c, told_plainly

if TYPE_CHECKING:
    from pipelines.review.answers import Answers


def review(
    out: Annotated[
        Path | None,
        typer.Argument(
            help="Output folder of a run of `kintsugi score` or `restore`, or a folder of them: the newest run is used."
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0 chooses a free port.")] = 0,
    behind: Annotated[
        str | None,
        typer.Option(
            "--behind",
            metavar="URL",
            help="Serve all runs of the folder to a web server that asks for passwords; URL is the address there.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="With --behind: the address to listen on, for the web server alone.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Only write all answers so far to this CSV file."),
    ] = None,
    load: Annotated[
        Path | None, typer.Option("--import", help="Only add the answers of a CSV file that --export has written.")
    ] = None,
) -> None:
    """Open a page on which you mark images of a run as good or defective, and see how many defects the run finds."""
    with told_plainly(stopped="every answer is kept"), terminated_as_by_ctrl_c():
        from flows.preflight import require
        from pipelines.errors import FolderError, ReviewError
        from pipelines.review.answers import Answers, answers_file

        answers = Answers(answers_file())
        if export is not None:
            typer.echo(f"{answers.write_csv(export)} answers: {export}")
            return
        if load is not None:
            typer.echo(f"{answers.read_csv(load)} new answers")
            return
        if out is None:
            raise FolderError("give the output folder of a run, as `kintsugi review report`")
        require("starlette", "uvicorn")
        if behind is None and address != "127.0.0.1":
            raise ReviewError(f"--address is '{address}' without --behind: without a web server the page is local only")
        if behind is not None:
            _serve_team(out, answers, behind, address, port)
            return
        from pipelines.review.run import ReviewedRun, newest_run
        from pipelines.review.server import serve_page

        def tell(address: str) -> None:
            typer.echo(f"{address}\nAnswers are kept in {answers.path}. Stop the page with Ctrl-C.")
            if browser:
                webbrowser.open(address)

        from pipelines.rebuild import rebuild_report

        if (newest := newest_run(out)) != out:
            typer.echo(f"the newest run: {newest}")
            out = newest
        run = ReviewedRun(out)
        try:
            serve_page(run, answers, port=port, tell=tell)
        finally:  # Ctrl-C is how the page ends
            if answers.of_run(run.name):
                typer.echo(f"report: {rebuild_report(out)}")


def _serve_team(folder: Path, answers: Answers, behind: str, address: str, port: int) -> None:
    """Serve all runs of a folder behind a web server, and keep their reports current."""
    from pipelines.rebuild import rebuild_report
    from pipelines.review.desk import Desks
    from pipelines.review.guard import team_door
    from pipelines.review.server import serve_team
    from pipelines.settings import settings

    secret = settings().review_secret
    door = team_door(behind, None if secret is None else secret.get_secret_value())

    def tell(inside: str) -> None:
        typer.echo(f"{behind} is served at {inside}, for the web server alone.\nAnswers are kept in {answers.path}.")

    serve_team(Desks(folder, answers), door, address=address, port=port, tell=tell, rebuild=rebuild_report)


def recalibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model in the registry.")],
    false_alarms: RateOption = None,
) -> None:
    """Set new thresholds for the champion from audited images, without training, and register a new version."""
    with told_plainly(stopped="the same command starts from the beginning"), terminated_as_by_ctrl_c():
        from flows.preflight import require

        require("torch", "timm", "mlflow", "onnx")
        from pipelines.base.percentages import percent
        from pipelines.training.recalibrate import recalibrate as set_thresholds

        made = set_thresholds(name, false_alarms=false_alarms)
        state = "champion" if made.promoted else "challenger"
        typer.echo(f"registered {made.version.ref} as {state}: {made.reason}")
        typer.echo(
            f"threshold {made.threshold:.4f} for false alarms of {percent(made.rate)}, from {made.images} images; "
            f"it flags about {percent(made.flagged)} of the audited run's good images, the old "
            f"threshold flags {percent(made.flagged_before)}"
        )
