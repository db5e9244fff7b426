"""Output folders as a run leaves them, made without a run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.anomaly.heatmap import position
from pipelines.batch import schema
from pipelines.report import write_report
from pipelines.report.folder import HeatFacts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("bit_depth", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("score", pa.float64()),
        ("bits_per_dim", pa.float64()),
        ("elbo", pa.float64()),
        ("rate", pa.float64()),
        ("distortion", pa.float64()),
        ("p_value", pa.float64()),
        ("is_anomaly", pa.bool_()),
        ("threshold", pa.float64()),
        ("note", pa.string()),
    ]
)
CALIBRATION = tuple((np.arange(1, 100) / 100).tolist())  # 0.01 .. 0.99: n + 1 = 100, so that rates are whole per cents
THRESHOLD = 0.99  # the highest: promises 1 %
SCORES = (0.105, 0.205, 0.305, 0.505, 0.705, 0.905, 0.955, 1.105, 1.305, 1.505)


def result_rows(
    scores: Sequence[float],
    *,
    names: Sequence[str] | None = None,
    failed: Sequence[tuple[str, str]] = (),
    calibrated: bool = True,
    threshold: float = THRESHOLD,
) -> list[dict[str, Any]]:
    """Rows of results.parquet in path order."""
    held = np.array(CALIBRATION)
    rows = [
        {
            "path": names[i] if names else f"line/image_{i:04d}.png",
            "sha256": f"{i:064x}",
            "width": 320,
            "height": 240,
            "bit_depth": 8,
            "status": "ok",
            "model": "tiles",
            "version": "3",
            "score": score,
            "bits_per_dim": score,
            "elbo": -1000 * score,
            "rate": 40.0,
            "distortion": 1000 * score - 40,
            "p_value": (1 + int(np.sum(held >= score))) / 100 if calibrated else None,
            "is_anomaly": score > threshold if calibrated else None,
            "threshold": threshold if calibrated else None,
        }
        for i, score in enumerate(scores)
    ]
    rows += [{"path": path, "status": "failed", "error": reason} for path, reason in failed]
    return sorted(rows, key=lambda row: row["path"])


def run_record(rows: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """run.json of a finished run."""
    failed = sum(row["status"] == "failed" for row in rows)
    record = {
        "verb": "score",
        "folder": "/data/tiles",
        "command": "kintsugi score /data/tiles --model tiles@champion --out out",
        "model": {
            "ref": "tiles@champion",
            "name": "tiles",
            "version": 3,
            "sha256": "ab" * 32,
            "metadata": {"task": "reconstruct", "size_multiple": 16, "outputs": {"elbo": "nats per image"}},
            "card": "# tiles\n\nFinds *defects*.",
        },
        "calibration": {"n": 99, "false_alarms": 0.01, "threshold": THRESHOLD, "scores": list(CALIBRATION)},
        "warnings": [],
        "counts": {
            "files": len(rows),
            "ok": len(rows) - failed,
            "failed": failed,
            "flagged": sum(bool(row.get("is_anomaly")) for row in rows),
        },
        "timings": {"decode": 0.5, "run": 2.0, "write": 0.25, "total": 2.5, "images_per_second": 4.0},
        "versions": {"kintsugi": "0.1.0", "python": "3.11.9"},
        "started": "2026-11-20T18:02:11+00:00",
        "finished": "2026-11-20T18:02:14+00:00",
    }
    return record | changes


def picture_bytes(kind: str, shade: int) -> bytes:
    """A small image: a grey JPEG, or a PNG that is red at its left half and clear elsewhere."""
    stream = io.BytesIO()
    if kind == "JPEG":
        Image.new("L", (64, 48), shade).save(stream, "JPEG")
    else:
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[:, :32] = (255, 0, 0, 255)
        Image.fromarray(pixels, "RGBA").save(stream, "PNG")
    return stream.getvalue()


def gallery_rows(rows: Sequence[dict[str, Any]], most: int = 64) -> list[dict[str, Any]]:
    """Rows of gallery.parquet, worst first."""
    scored = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: -row["score"])
    return [
        {
            "path": row["path"],
            "score": row["score"],
            "thumbnail": picture_bytes("JPEG", 40 + 2 * i),
            "heatmap": picture_bytes("PNG", 0),
        }
        for i, row in enumerate(scored[:most])
    ]


HEAT = HeatFacts(
    level=0.001,
    speck_percent=0.1,
    places=50_000,
    smallest=2e-5,
    colours=((0.01, 0.0), (0.001, 0.35), (0.0001, 0.75), (2e-5, position(2e-5))),
)


def picture_rows(near: list[list[str]]) -> list[dict[str, Any]]:
    """Rows of gallery.parquet with all that a run writes, for images with these good images closest to them."""
    rows = result_rows([2.0 - 0.1 * i for i in range(len(near))])
    return [
        row
        | {
            "local_p_value": 2e-5,
            "regions": 2,
            "regions_percent": 12.5,
            "largest_left": 10,
            "largest_top": 5,
            "largest_width": 30,
            "largest_height": 20,
            "largest_x": 25.5,
            "largest_y": 14.6,
            "outlines": "M10 5L40 5L40 25L10 25Z",
            "neighbours": [
                {"name": name, "distance": 0.5 + k, "thumbnail": row["thumbnail"]} for k, name in enumerate(names)
            ],
        }
        for row, names in zip(gallery_rows(rows), near, strict=True)
    ]


EVALUATION = {
    "image_auroc": 0.984,
    "image_auroc_interval": [0.961, 0.995],
    "image_ap": 0.99,
    "pixel_auroc": None,
    "aupro": None,
    "fpr_at_threshold": 0.03,
    "fpr_interval": [0.002, 0.049],
    "tpr_at_threshold": 0.9,
    "n_good": 100,
    "n_bad": 50,
    "images_per_second": 12.0,
    "threshold": THRESHOLD,
    "false_alarms": 0.01,
    "roc": [[0, 0], [0, 0.5], [0, 0.9], [0.03, 0.9], [0.5, 1], [1, 1]],
    "defects": {
        "scratch": {"n": 20, "image_auroc": 0.99, "image_auroc_interval": [0.97, 1.0], "tpr_at_threshold": 0.95},
        "crack": {"n": 30, "image_auroc": 0.91, "tpr_at_threshold": 0.8},
    },
}


class Maker:
    """Makes output folders under one temporary folder."""

    calibration = CALIBRATION
    threshold = THRESHOLD
    scores = SCORES
    evaluation = EVALUATION
    schema = SCHEMA
    rows = staticmethod(result_rows)
    run = staticmethod(run_record)
    heat = HEAT

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(
        self,
        rows: list[dict[str, Any]] | None = None,
        *,
        run: dict[str, Any] | str | None = "as the rows say",
        gallery: bool = True,
        evaluation: dict[str, Any] | None = None,
        name: str = "out",
    ) -> Path:
        """Write an output folder; what is given as None is left out."""
        out = self.root / name
        (out / ".kintsugi-run").mkdir(parents=True)
        rows = result_rows(SCORES, failed=[("broken.png", "truncated PNG")]) if rows is None else rows
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out / "results.parquet")
        if run is not None:
            (out / "run.json").write_text(json.dumps(run_record(rows) if isinstance(run, str) else run))
        if gallery:
            pq.write_table(pa.Table.from_pylist(gallery_rows(rows)), out / ".kintsugi-run" / "gallery.parquet")
        if evaluation is not None:
            (out / "evaluation.json").write_text(json.dumps(evaluation))
        return out

    def pictured(self, near: list[list[str]]) -> Path:
        """Write an output folder with everything that a run tells of its worst images."""
        pictures = picture_rows(near)
        rows = result_rows([row["score"] for row in pictures])
        out = self.folder(rows, run=run_record(rows, heat=HEAT.model_dump()), gallery=False)
        table = pa.Table.from_pylist(pictures, schema=schema.GALLERY)
        pq.write_table(table, out / ".kintsugi-run" / "gallery.parquet")
        return out

    def restored(self, names: Sequence[str], *, note: str | None = None) -> Path:
        """Write the output folder of `kintsugi restore`: error bars fall, and one file failed."""
        out = self.root / "restored"
        (out / ".kintsugi-run").mkdir(parents=True)
        rows: list[dict[str, Any]] = [
            {
                "path": name,
                "status": "ok",
                "width": 320,
                "height": 240,
                "model": "denoise",
                "version": None,
                "score": None,
            }
            | {
                "error": None,
                "note": note,
                "output": f"restored/{name}",
                "mean_scale": (len(names) - i) / 255,
                "psnr": 30.0,
            }
            for i, name in enumerate(names)
        ]
        failed = {"path": "broken.png", "status": "failed", "error": "truncated PNG"}
        pq.write_table(pa.Table.from_pylist([*rows, failed]), out / "results.parquet")
        model = {"name": "denoise", "metadata": {"task": "denoise"}}
        record = run_record([*rows, failed], verb="restore", model=model, calibration=None)
        (out / "run.json").write_text(json.dumps(record))
        stream = io.BytesIO()
        Image.new("L", (64, 48), 90).save(stream, "WEBP")
        shown = {"thumbnail": stream.getvalue(), "restored": stream.getvalue(), "heatmap": picture_bytes("PNG", 0)}
        pictures = [{"path": row["path"], "mean_scale": row["mean_scale"]} | shown for row in rows[:2]]
        pq.write_table(pa.Table.from_pylist(pictures), out / ".kintsugi-run" / "gallery.parquet")
        return out

    def large(self, count: int) -> Path:
        """Write results.parquet and run.json of many files, quickly."""
        out = self.root / "large"
        out.mkdir()
        rng = np.random.default_rng(5)
        scores = rng.gamma(9, 0.05, count)
        columns = {
            "path": [f"2026-11-{1 + i // 10_000:02d}/camera_{i % 4}/part_{i:07d}.png" for i in range(count)],
            "sha256": [f"{i:064x}" for i in range(count)],
            "width": np.full(count, 1024),
            "height": np.full(count, 768),
            "bit_depth": np.full(count, 8),
            "status": np.full(count, "ok"),
            "error": pa.nulls(count, pa.string()),
            "model": np.full(count, "tiles"),
            "version": np.full(count, "3"),
            "score": scores,
            "bits_per_dim": scores * 0.7,
            "elbo": -5e4 * scores,
            "rate": rng.normal(400, 20, count),
            "distortion": 5e4 * scores - 400,
            "p_value": (100 - np.searchsorted(np.array(CALIBRATION), scores)) / 100,
            "is_anomaly": scores > THRESHOLD,
            "threshold": np.full(count, THRESHOLD),
            "note": pa.nulls(count, pa.string()),
        }
        pq.write_table(pa.table(columns, schema=SCHEMA), out / "results.parquet")
        counts = {"files": count, "ok": count, "failed": 0, "flagged": int(np.sum(scores > THRESHOLD))}
        (out / "run.json").write_text(json.dumps(run_record([], counts=counts)))
        return out


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def show(browser: Browser) -> Iterator:
    """Opens a page, or the report of a folder; at the end, fails if it complained, loaded anything or had a dialog."""
    complaints: list[str] = []
    pages = []

    def open_page(out: Path, **options: object) -> Page:
        page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        pages.append(page)
        address = (out if out.is_file() else write_report(out)).as_uri()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: complaints.append(f"request: {request.url}"))
        page.goto(address)
        # Pictures are data inside the page; the page itself is the one request.
        complaints[:] = [text for text in complaints if not text.startswith((f"request: {address}", "request: data:"))]
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [text for text in complaints if not text.startswith("request: data:")] == []
