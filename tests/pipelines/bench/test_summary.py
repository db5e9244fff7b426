"""From cells to rows: spreads, ratios, failures, text."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.bench.methods import method_of
from pipelines.bench.page import format_page
from pipelines.bench.summary import choose_baseline, compute_ratios, spread, summarise


def cell(method: str, seed: int, auroc: float, speed: float = 10.0) -> dict:
    block = {"n": 3, "image_auroc": auroc, "aupro": None}
    figures = {"image_auroc": auroc, "image_ap": 0.5, "pixel_auroc": None, "aupro": 0.25, "defects": {"crack": block}}
    return {
        "method": method, "seed": seed, "status": "ok", "figures": figures, "train_seconds": 8.0,
        "images_per_second": speed, "peak_mib": 500.0, "size": [64, 64], "n_train": 9, "device": "cpu", "note": "n",
        "scores": {"good/1.png": 0.0, "good/2.png": 2.0, "crack/1.png": 1.0 + seed}, "calibration": [0.5, 1.5, 1.0],
    }  # fmt: skip


def failed(method: str, seed: int, reason: str) -> dict:
    return {"method": method, "seed": seed, "status": "failed", "reason": reason}


def test_spread_is_numpys() -> None:
    values = [0.7, 0.9, 0.85]
    found = spread(values)
    assert found is not None
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (found["min"], found["max"], found["values"]) == (0.7, 0.9, values)
    assert spread([0.5])["sd"] is None
    assert spread([None, None]) is None


def test_a_failed_seed_is_no_part_of_the_mean() -> None:
    row = summarise(method_of("ours"), [cell("ours", 0, 0.9), failed("ours", 1, "no memory"), cell("ours", 2, 0.7)])
    assert row["image_auroc"]["mean"] == pytest.approx(0.8)
    assert row["seeds"] == [0, 2]
    assert row["failed"] == {"1": "no memory"}
    assert row["pixel_auroc"] is None
    assert row["defects"]["crack"]["image_auroc"]["max"] == 0.9
    assert row["n_calibrate"] == 3
    assert row["rates"]["0.05"]["own_promised"]["values"] == [0.25, 0.25]
    assert row["rates"]["0.05"]["own_recall"]["values"] == [0.0, 1.0]  # thresholds 1.5; scores 1 and 3
    assert row["rates"]["0.05"]["own_rate"]["mean"] == 0.5


def test_ratios_are_against_the_first_baseline_that_has_figures() -> None:
    rows = {
        "ours": summarise(method_of("ours"), [cell("ours", 0, 0.95, speed=30.0)]),
        "patchcore": summarise(method_of("patchcore"), [failed("patchcore", 0, "x")]),
        "autoencoder_l2": summarise(method_of("autoencoder_l2"), [cell("autoencoder_l2", 0, 0.5)]),
        "knn": summarise(method_of("knn"), [cell("knn", 0, 0.9)]),
    }
    assert choose_baseline(rows) == "knn"
    found = compute_ratios(rows)
    assert set(found) == {"ours", "autoencoder_l2", "knn"}
    assert found["ours"]["missed"] == pytest.approx(0.5)
    assert found["ours"]["images_per_second"] == pytest.approx(3.0)
    assert compute_ratios({"ours": rows["ours"]}) == {}


def test_the_page_shows_every_row() -> None:
    rows = {
        "ours": summarise(method_of("ours"), [cell("ours", 0, 0.95), cell("ours", 1, 0.97)]),
        "padim": summarise(method_of("padim"), [failed("padim", 0, "a | long\nreason " + "x" * 100)]),
    }
    page = format_page(
        {
            "dataset": "tiles",
            "settings": {"half": "B", "overrides": ["train.steps=5"], "max_train": None},
            "images": {"n_train": 9, "n_good": 4, "n_bad": 5},
            "methods": rows,
            "baseline": choose_baseline(rows),
            "ratios": compute_ratios(rows),
            "comparisons": None,
            "published": [{"title": "1-NN", "image_auroc": 0.8}],
        }
    )
    assert "half B of the test images: 4 good and 5 defective" in page
    assert "0.9600 [0.9500, 0.9700] ± 0.0141" in page
    assert "seed 0 | failed: a / long reason" in " ".join(page.split())
    assert "| 0.020 | 0.100 | 0.500 at 50.0% | 0.500 at 50.0%" in " ".join(page.split())
    assert "Calibration images of a row: 3; where these are too few for a rate" in page
    assert "x" * 100 in page  # in full, below the table
    assert "published: 1-NN" in page
