"""One measurement of throughput, in a process of its own: `python -m` this module, REQUEST and ANSWER."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import KintsugiError

Answer = dict[str, Any]
logging.basicConfig(level=logging.WARNING, format="%(message)s")


def ours(request: Answer) -> Answer:
    """The batch job, report and all; times from when the model is loaded, and to the first row from the very start."""
    from pipelines.batch.options import ScoreOptions
    from pipelines.score import open_scoring

    first: list[float] = []
    options = ScoreOptions(fresh=True)
    with open_scoring(request["images"], request["model"], Path(request["work"]) / "out", options) as job:
        start = time.perf_counter()
        for shard in job.shards():
            job.run(shard, lambda *_: first.append(time.time()) if not first else None)
        job.finish()
        seconds = time.perf_counter() - start
        return {
            "images": len(job.files),
            "seconds": seconds,
            "first_row_seconds": first[0] - request["started"],
            "stages": job.stages.seconds,
        }


def naive(request: Answer) -> Answer:
    """What one writes in an afternoon: one image after the other with Pillow, torch and a CSV file.

    The same network, and a heat map of each image that the batch job flags.
    """
    import csv

    import numpy as np
    import torch
    from PIL import Image

    from pipelines.anomaly.heatmap import HeatScale, colourise, overlay
    from pipelines.images import find_images
    from pipelines.images.drawing import png
    from pipelines.models.session import Session, keyed_noise
    from pipelines.registry.resolve import find_model
    from pipelines.training.weights import load_network

    file = find_model(request["model"])
    graph, metadata, calibration = load_network(file), Session(file, device="cpu").metadata, file.calibration()
    out, flagged = Path(request["work"]) / "out", set(request["flagged"])
    out.mkdir(parents=True)
    files = find_images(Path(request["images"]))
    start = time.perf_counter()
    with (out / "results.csv").open("w", newline="") as text, torch.inference_mode():
        rows = csv.writer(text)
        for each in files:
            picture = Image.open(each.path).convert("L" if metadata.channels == 1 else "RGB")
            pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
            noise = keyed_noise("0" * 64, (1, metadata.samples, *metadata.latent_shape))
            found = graph(torch.from_numpy(pixels.copy())[None], torch.from_numpy(noise))
            heat = found["anomaly_map"][0].numpy()
            if each.relative in flagged:
                drawn = overlay(pixels, colourise(heat, HeatScale.of(calibration, heat)))
                (out / f"{each.path.stem}.png").write_bytes(png(drawn))
            rows.writerow([each.relative, *(float(found[name][0]) for name in ("score", "elbo", "rate", "distortion"))])
    return {"images": len(files), "seconds": time.perf_counter() - start}


def limits(request: Answer) -> Answer:
    """Each stage by itself on the same images, with all cores: what the job would take if the stages were all."""
    from pipelines.base.concurrency import in_order
    from pipelines.batch.options import ScoreOptions
    from pipelines.images import Failed
    from pipelines.models.inputs import decode_for
    from pipelines.score import open_scoring
    from pipelines.settings import settings

    options = ScoreOptions(fresh=True)
    with open_scoring(request["images"], request["model"], Path(request["work"]) / "out", options) as job:
        workers = settings().workers
        seconds, start = {}, time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal start
            seconds[stage] = time.perf_counter() - start
            start = time.perf_counter()

        images = [each for each in decode_for(job.files, job.session.metadata) if not isinstance(each, Failed)]
        lap("decode")
        size = job.session.batch_size
        batches = [images[first : first + size] for first in range(0, len(images), size)]
        scored = list(in_order(job.score_batch, batches, workers=job.session.calls))
        lap("run")
        rows = [row for drawn in in_order(job.draw_batch, scored, workers=workers) for row, _ in drawn]
        job.output.store.write(rows)
        job.finish()
        lap("write")
    return {"images": len(images), "seconds": sum(seconds.values()), "stages": seconds}


KINDS: dict[str, Callable[[Answer], Answer]] = {"ours": ours, "naive": naive, "limits": limits}


def main(request_path: Path, answer_path: Path) -> int:
    """Measure what the request names."""
    from pipelines.bench.peak import peak_memory

    request = json.loads(request_path.read_text(encoding="utf-8"))
    try:
        answer = KINDS[request["row"]](request) | {"peak_mib": peak_memory()}
    except KintsugiError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    answer_path.write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
