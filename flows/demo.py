"""The demo: every step on real images that ship with the software, with the same flows that a schedule runs."""

from __future__ import annotations

import logging
import shlex
import time
from pathlib import Path

from flows.server import orchestrator
from pipelines.base.files import write_atomically
from pipelines.demo_images import MAGNETIC_TILE, PHOTOGRAPHS
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.jobfile.job import to_toml

log = logging.getLogger(__name__)

MODEL = "tiles"
JOB = """\
# Real images of magnetic tiles. Every other key has a default that is chosen from the images.
name = "{name}"
task = "reconstruct"

[data]
train = {train}

[calibrate]
false_alarms = 0.1  # One good tile in ten may be flagged; a lower rate would miss more defects.
"""


RESTORED = {  # title: folder of the sample, model
    "Noise removed": ("noisy", "builtin:photo"),
    "Twice as large": ("small", "builtin:super_resolution_x2"),
    "Coloured": ("grey", "builtin:colorize"),
}


def run_demo(out: Path) -> str:
    """Train, register, export, score, evaluate and report on the bundled images.

    Args:
        out: Output folder. A second run registers the next version there.

    Returns:
        The text for the user: figures, the report's path, and commands to try next.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    job = out / "tiles.toml"
    good = MAGNETIC_TILE / "train"
    text = JOB.format(name=MODEL, train=to_toml(str(good)))
    write_atomically(job, lambda path: path.write_text(text, encoding="utf-8"))
    report = out / "report"
    with orchestrator():
        # They import Prefect, which takes seconds: the orchestrator does so while its server starts.
        from flows.score import score_flow
        from flows.train import train_flow

        log.info("training on %d images of magnetic tiles", len(list(good.glob("*/*"))))
        trained = train_flow(job)
        assert trained is not None  # noqa: S101 - it is None only where the flow is asked whether to train
        model = trained.version.ref
        # More than half are defective, which no real delivery is: the warning that follows is right about that.
        log.info("scoring the test images with %s: 16 of 28 are defective, so expect a warning of drift", model)
        score_flow(MAGNETIC_TILE / "test", model, report)
        photographs = _restore_photographs(out)
    figures = evaluate_model(MAGNETIC_TILE, model, out=report, json_path=out / "evaluation.json")
    champion = "champion" if trained.promoted else "registered, not champion"
    lines = [
        "",
        f"{model} is {champion}: {trained.reason}",
        *describe_evaluation(figures),
        "",
        f"Report:  {report / 'report.html'}",
        f"Restored photographs:  {photographs}",
        f"Took {time.monotonic() - start:.0f} s. Try next:",
        *(f"  {command}" for command in next_commands(out, job, model)),
    ]
    return "\n".join(lines)


def _restore_photographs(out: Path) -> Path:
    """Restore a noisy, a small and a grey photograph with models that ship; return the page that shows them."""
    from flows.restore import restore_flow
    from pipelines.report import write_photographs

    runs = {}
    for done, (folder, model) in RESTORED.items():
        log.info("restoring a photograph with %s", model)
        runs[done] = out / "restored" / folder
        restore_flow(PHOTOGRAPHS / folder, model, runs[done])
    return write_photographs(out / "photographs.html", runs)


def next_commands(out: Path, job: Path, model: str) -> list[str]:
    """Return the commands to try after the demo, quoted for a shell."""
    kintsugi = f"KINTSUGI_HOME={shlex.quote(str(out / 'home'))} .venv/bin/kintsugi"
    return [
        f"{kintsugi} models show {MODEL}",
        f"{kintsugi} score YOUR_FOLDER --model {model} --out {shlex.quote(str(out / 'yours'))}",
        f"{kintsugi} train {shlex.quote(str(job))} --set model.vae=deep",
    ]
