#!/usr/bin/env python3
r"""Pictures with known factors, and what a weight on the latents' dependence does to a VAE of them.

    scripts/sprites.py write sprites                    # 12,288 PNG files and factors.csv
    scripts/sprites.py compare sprites --work /tmp/sprites --json sprites.json

`compare` trains the plain VAE and the beta-TCVAE with the same network, steps and seeds, and prints for each the mutual
information gap over all pictures, and rate and distortion of those that were kept from training. What was trained
before, in the same --work, is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from lectures.information import factor_entropy, mutual_information, mutual_information_gap
from lectures.shapes import FACTORS, all_factors, draw_sprite
from lectures.training import BATCH, Trained, job_of, trained, write_grey

from pipelines.errors import KintsugiError
from vaecore.bound import DiagonalGaussian, elbo

log = logging.getLogger("sprites")
SIDE, LATENTS = 32, 10
FACTORS_FILE = "factors.csv"


def write(folder: Path) -> None:
    """All combinations, and a table of them."""
    rows = all_factors()
    for row in rows:
        write_grey(folder / name_of(row), draw_sprite(row, SIDE))
    with (folder / FACTORS_FILE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", *FACTORS])
        table.writerows([name_of(row), *row] for row in rows)


def name_of(row: np.ndarray) -> str:
    """The file of a row of factors."""
    return "-".join(f"{value:02}" for value in row) + ".png"


def compare(folder: Path, work: Path, steps: int, beta: float, seeds: int) -> dict[str, Any]:
    """Train both objectives with each seed, and measure them."""
    objectives: dict[str, dict[str, Any]] = {
        "elbo": {},
        "total_correlation": {"objective": "total_correlation", "beta": beta},
    }
    found: dict[str, Any] = {"steps": steps, "beta": beta, "runs": {name: [] for name in objectives}}
    for seed in range(seeds):
        for name, options in objectives.items():
            one = trained(sprite_job(folder, steps, seed, options), work)
            found["runs"][name].append(measure(one, folder))
            log.info("%s, seed %d: %s", name, seed, json.dumps(found["runs"][name][-1]))
    for name, runs in found["runs"].items():
        for figure in ("mig", "distortion", "rate", "elbo"):
            values = [run[figure] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            log.info("%-18s %-10s %.3f +- %.3f", name, figure, statistics.mean(values), spread)
    return found


def sprite_job(folder: Path, steps: int, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """The job of one training."""
    model = {"size": [SIDE, SIDE], "latent_channels": LATENTS, "stages": 3, "width": 8}
    return job_of(folder, model, {"steps": steps, "batch": 128, "learning_rate": 2e-3, "seed": seed, **options})


@torch.inference_mode()
def measure(one: Trained, folder: Path) -> dict[str, Any]:
    """The gap over all pictures, and the bound of those that were kept from training, in nats a picture."""
    with (folder / FACTORS_FILE).open(newline="") as file:
        known = {row.pop("file"): [int(value) for value in row.values()] for row in csv.DictReader(file)}
    factors = torch.tensor([known[name] for name in one.names()])
    parts = [
        one.network.posterior(one.examples.batch(part))
        for part in np.array_split(np.arange(len(factors)), -(-len(factors) // BATCH))
    ]
    posterior = DiagonalGaussian(torch.cat([p.mean for p in parts]), torch.cat([p.log_scale for p in parts]))
    information = mutual_information(posterior, factors, torch.Generator().manual_seed(0))
    entropy = factor_entropy(factors)
    gap, gaps = mutual_information_gap(information, entropy)
    chance = torch.Generator().manual_seed(1)
    y = one.examples.batch(one.held_out, chance=chance)
    bounds = [
        elbo(one.network, part, torch.randn((len(part), 8, *one.network.latent_shape), generator=chance))
        for part in y.split(BATCH)
    ]
    return {
        "mig": gap,
        "gaps": dict(zip(FACTORS, gaps, strict=True)),
        "distortion": float(torch.cat([bound.distortion for bound in bounds]).mean()),
        "rate": float(torch.cat([bound.rate for bound in bounds]).mean()),
        "elbo": float(torch.cat([bound.value for bound in bounds]).mean()),
        "information": (information / entropy).tolist(),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("write", "compare"):
        one = verbs.add_parser(verb)
        one.add_argument("folder", type=Path, help="of the pictures")
    one.add_argument("--work", type=Path, required=True, help="checkpoints")
    one.add_argument("--steps", type=int, default=3000)
    one.add_argument("--beta", type=float, default=3.0)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--json", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parser.parse_args()
    try:
        if args.verb == "write":
            write(args.folder)
            return
        found = compare(args.folder.resolve(), args.work.resolve(), args.steps, args.beta, args.seeds)
    except KintsugiError as error:
        sys.exit(str(error))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
