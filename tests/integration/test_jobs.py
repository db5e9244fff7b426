"""Training and scoring through the work pool, with everything on the servers."""

from __future__ import annotations

import hashlib
import json
import sys

import pyarrow.parquet as pq
import pytest

from .conftest import IMAGES, results

FORGET = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pipelines.registry.batch_runs import forget_published
assert forget_published(Path(sys.argv[1]), timedelta(0), datetime.now(UTC) + timedelta(minutes=1)) == 1
"""

pytestmark = pytest.mark.integration


def test_training_registers_a_version_in_postgresql_with_its_files_in_the_object_store(stack, champion):
    prefect, mlflow = stack.prefect_api, stack.mlflow_api
    assert mlflow.champion("tiles") == 1
    rows = stack.postgres.query("mlflow", "SELECT name, version, run_id FROM model_versions")
    run = mlflow.versions("tiles")[1]["run_id"]
    assert rows == f"tiles\t1\t{run}"
    objects = stack.objects()
    (key,) = [key for key in objects if key.endswith("/model.onnx")]
    assert run in key
    page = prefect.artifacts(champion.run)["train-tiles-version"]["data"]
    assert hashlib.sha256(objects[key]).hexdigest() in page
    assert [each["info"]["status"] for each in mlflow.runs("tiles")] == ["FINISHED"]
    assert not list((stack.folder / "worker-home").rglob("*.db")), "a server's client keeps no database of its own"


def test_the_registry_answers_on_the_command_line(stack, champion, timings):
    with timings.step("1. kintsugi models list, show, search and verify"):
        for words, shown in (
            (["list"], "tiles"),
            (["show", "tiles"], "champion"),
            (["search", "task=reconstruct", "alias=champion"], "tiles"),
            (["verify", "tiles@champion"], "tiles/1"),
        ):
            told = stack.kintsugi("models", *words)
            assert (told.code, shown in told.out) == (0, True), f"models {words}: {told}"


def test_a_folder_is_scored_as_on_a_users_machine(stack, champion, inbox, expected, timings):
    out = stack.data / "reports"  # as prefect.yaml has it, each run in a folder of its own there
    run = stack.prefect_api.start("score", folder=str(inbox), model="tiles/1")
    with timings.step("2. a folder is scored by the worker"):
        stack.prefect_api.completed(run)
    (own,) = (path for path in out.iterdir() if path.is_dir())
    told = json.loads((own / "run.json").read_text())
    assert told["counts"]["ok"] == IMAGES
    assert pq.read_table(own / "results.parquet").num_rows == IMAGES
    assert (own / "report.html").read_text().rstrip().endswith("</html>")
    assert results(own) == expected
    artifacts = stack.prefect_api.artifacts(run)
    assert any(key.endswith("-counts") for key in artifacts), artifacts.keys()
    assert any(str(own / "report.html") in str(each["data"]) for each in artifacts.values())
    _goes_from_the_servers(stack, own, timings)


def _goes_from_the_servers(stack, own, timings):
    """What a run left in MLflow, once it is old: its files from the object store, itself from PostgreSQL."""
    kept = [key for key in stack.objects() if key.endswith(("/report.html", "/run.json"))]
    assert len(kept) == 2
    assert len(stack.mlflow_api.runs("tiles%20(runs)")) == 1
    with timings.step("2. what it left in MLflow is removed"):
        stack.one_shot([sys.executable, "-c", FORGET, own], stack.client(), stack.data)
    assert not set(kept) & set(stack.objects())
    assert not stack.mlflow_api.runs("tiles%20(runs)")
    deleted = "SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted'"
    assert stack.postgres.query("mlflow", deleted) == "1"
    client = {name: value for name, value in stack.client().items() if name.startswith("MLFLOW_TRACKING_")}
    clean = ["mlflow", "gc", "--backend-store-uri", "postgresql+psycopg2:///mlflow"]
    stack.one_shot(clean, stack.of_mlflow() | client, stack.data)
    assert stack.postgres.query("mlflow", deleted) == "0"
    assert stack.mlflow_api.champion("tiles") == 1
