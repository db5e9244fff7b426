"""Models that mend against each other and against methods without networks, on the same damaged images in one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from pipelines.base.files import write_atomically, write_json
from pipelines.batch.output_folder import check_writable
from pipelines.errors import DataError
from pipelines.evaluation.classical import choose_classical
from pipelines.evaluation.restorer import evaluate_restorer
from pipelines.models.model_file import ModelFile
from pipelines.models.session import RestoringSession
from pipelines.registry.resolve import find_model
from vaecore.graphs.export import HALF

SIDE = 240  # of the picture that operations are counted for: a multiple of every stride


@dataclass(frozen=True, slots=True)
class RestorationBench:
    """What a finished benchmark has to say."""

    out: Path
    text: str
    failed: int  # images that could not be read


def bench_restoration(
    folder: Path, out: Path, *, models: Sequence[str], levels: Sequence[str] | None = None, classical: str = "all"
) -> RestorationBench:
    """Measure models and classical methods, and write `bench.json` and `bench.md`.

    Args:
        folder: Clean images.
        out: Output folder.
        models: References of models that do the same.
        levels: Strengths of the damage, as text; default: the first model's own.
        classical: Names of `pipelines.evaluation.classical`, between commas; "all", or "none".

    Returns:
        The table, and where it is.

    Raises:
        DataError: The models do not do the same, or a name is not known.
    """
    check_writable(out)
    files = [find_model(ref) for ref in models]
    known = [RestoringSession(file, device="cpu", threads=1).metadata for file in files]
    does = [(each.task, each.scale, each.channels, each.damage) for each in known]
    if different := next((ref for ref, each in zip(models, does, strict=True) if each != does[0]), None):
        raise DataError(
            f"{models[0]} and {different} have different tasks: compare models of one task, scale and damage"
        )
    others = () if classical == "none" else tuple(choose_classical(does[0][0], tuple(classical.split(","))))
    levels = levels or [f"{level:g}" for level in known[0].levels]
    found: dict[str, Any] = {}
    for number, (ref, file) in enumerate(zip(models, files, strict=True)):
        figures = evaluate_restorer(folder, file, levels=levels, classical=others if number == 0 else ())
        found[ref] = {"operations": count_operations(file), "figures": figures}
        write_json(out / "bench.json", {"folder": folder.name, "models": found})
    text = "\n\n".join(_table(level, found) for level in found[models[0]]["figures"]["levels"])
    write_atomically(out / "bench.md", lambda path: path.write_text(f"{text}\n", encoding="utf-8"))
    return RestorationBench(out, text, max(each["figures"]["n_failed"] for each in found.values()))


def count_operations(file: ModelFile) -> float:
    """Multiply-accumulates of all convolutions for each pixel of the result; nothing else costs as much."""
    model = onnx.load(file.path)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        model.graph.output.add().name = node.output[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    channels = session.get_inputs()[0].shape[3]
    names = ["restored", *(node.output[0] for node in convolutions)]
    restored, *maps = session.run(names, {"image": np.zeros((1, SIDE, SIDE, channels), np.float32)})
    weights = {each.name.removesuffix(HALF): math.prod(each.dims) for each in model.graph.initializer}
    each = (weights[node.input[1]] * math.prod(found.shape[2:]) for node, found in zip(convolutions, maps, strict=True))
    return float(sum(each) / math.prod(restored.shape[1:3]))


def _table(level: str, found: dict[str, Any]) -> str:
    """Rows by PSNR, the worst first; times as multiples of the fastest model's, too."""
    rows: list[tuple[str, dict[str, Any], float | None]] = []
    for ref, each in found.items():
        figures = each["figures"]["levels"][level]
        rows.append((ref, figures, each["operations"]))
        rows += [(name, other, None) for name, other in figures["baselines"].items() if (ref, name) in _shown(found)]
    fastest = min(figures["seconds"] for _, figures, operations in rows if operations is not None)
    lines = [
        f"level {level}, {next(iter(found.values()))['figures']['n_images']} images",
        "",
        "| method | PSNR, dB | SSIM | seconds | times the fastest model | thousand operations for each pixel |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures, count in sorted(rows, key=lambda row: row[1]["psnr"]):
        ssim = "-" if figures["ssim"] is None else f"{figures['ssim']:.4f}"
        own = name == "input"
        seconds = "-" if own else f"{figures['seconds']:.3f}"
        ratio = "-" if own else f"{figures['seconds'] / fastest:.1f}"
        lines.append(
            f"| {name} | {figures['psnr']:.2f} | {ssim} | {seconds} | {ratio} | "
            f"{'-' if count is None else f'{count / 1e3:.1f}'} |"
        )
    return "\n".join(lines)


def _shown(found: dict[str, Any]) -> set[tuple[str, str]]:
    """Each baseline once, by the first model that it was measured beside."""
    shown: dict[str, str] = {}
    for ref, each in found.items():
        for figures in each["figures"]["levels"].values():
            for name in figures["baselines"]:
                shown.setdefault(name, ref)
    return {(ref, name) for name, ref in shown.items()}
