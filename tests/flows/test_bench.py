"""`kintsugi bench`: help, and wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.bench import app
from pipelines.bench.methods import DEFAULT, METHODS
from pipelines.demo_images import MAGNETIC_TILE


def test_help_names_every_method() -> None:
    said = " ".join(CliRunner().invoke(app, ["anomaly", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert all(name in said for name in (*DEFAULT, *(method.asked_as for method in METHODS)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no train/good in it"),
        ([str(MAGNETIC_TILE), "nowhere"], "there is no train/good in it"),
        ([str(MAGNETIC_TILE), str(MAGNETIC_TILE)], "two data sets are named"),
        ([str(MAGNETIC_TILE), "--scores", "before"], "give a name and a file"),
        ([str(MAGNETIC_TILE), "--methods", "magic"], "there is no method 'magic'"),
        ([str(MAGNETIC_TILE), "--set", "train.seed=1"], "use --seeds"),
        ([str(MAGNETIC_TILE), "--half", "C"], "'C' is not one of"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["anomaly", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert message in done.stderr
