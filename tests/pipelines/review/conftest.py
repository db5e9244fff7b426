"""A finished run over real files, made without a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.base.files import map_name
from pipelines.batch.schema import RESULTS


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Make a run."""
    return write_run


def write_run(root: Path, count: int = 40, names: list[str] | None = None, verb: str = "score") -> Path:
    """A finished run over real files, of which every tenth is flagged and one failed."""
    folder, out = root / "images", root / "out"
    folder.mkdir()
    (out / "maps").mkdir(parents=True)
    names = names or [f"{number:03}.png" for number in range(count)]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (number % 256, 80, 90)).save(folder / name)
        flagged = number % 10 == 0
        rows.append({
            "path": name, "sha256": f"{number:064x}", "status": "ok",
            "score": 3.0 + number if flagged else number / 100,
            "is_anomaly": flagged, "threshold": 2.0, "mean_scale": number / 1000,
        })  # fmt: skip
        if flagged:
            Image.new("RGBA", (40, 30)).save(out / map_name(name))
    rows.append({"path": "broken.png", "sha256": "f" * 64, "status": "failed"})
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), out / "results.parquet")
    model = {"name": "tiles", "version": "3", "sha256": "0" * 64}
    run = {"verb": verb, "folder": str(folder), "model": model, "started": "2026-12-02", "finished": "2026-12-02"}
    (out / "run.json").write_text(json.dumps(run))
    return out
