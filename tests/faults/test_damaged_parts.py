"""Damage to what a run relies on: model, calibration, gallery, card, rows so far, and files of the output folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from pipelines.base.locks import locked
from pipelines.errors import FolderError, JobError, ModelError
from pipelines.jobfile.job import load_job
from pipelines.models.model_file import METADATA_KEY
from pipelines.models.reference import BUILTIN
from pipelines.rebuild import rebuild_report
from pipelines.registry.resolve import find_model


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """A tenth of it in the middle, as a bad block does."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = b"\xa5" * (len(data) // 10)
    path.write_bytes(data)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes())


DAMAGES = [cut, empty, overwrite, no_text]


@pytest.fixture
def bundle(verb, trained, tmp_path: Path) -> Path:
    """A copy of the model's folder that may be damaged."""
    source = trained.bundle if verb.name == "score" else BUILTIN / "denoise"
    return Path(shutil.copytree(source, tmp_path / "bundle"))


@pytest.mark.parametrize("damage", [cut, empty, no_text])  # other weights: nobody can tell, without a calibration
def test_a_damaged_model_file_is_one_line(verb, bundle: Path, images: Path, tmp_path: Path, damage: Callable) -> None:
    (bundle / "calibration.json").unlink(missing_ok=True)  # which would tell it first, by the digest
    (bundle / "gallery.safetensors").unlink(missing_ok=True)
    damage(bundle / "model.onnx")
    ended = replace(verb, model=str(bundle / "model.onnx")).run(images, tmp_path / "out")
    assert ended.code == 2
    (line,) = ended.lines
    assert line.startswith(f"error: {bundle / 'model.onnx'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["calibration.json", "gallery.safetensors", "model.onnx"])
def test_damage_beside_the_model_is_one_line(
    score, trained, images: Path, tmp_path: Path, name: str, damage: Callable
) -> None:
    bundle = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    damage(bundle / name)
    ended = replace(score, model=str(bundle)).run(images, tmp_path / "out")
    if name == "gallery.safetensors" and damage is overwrite:
        assert ended.code == 0  # other pixels of a thumbnail: nobody can tell
        return
    assert ended.code == 2
    (line,) = ended.lines
    named = "calibration.json" if name == "model.onnx" else name
    assert line.startswith(f"error: {bundle / named} ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("size", [0, 40]), ("samples", -1), ("latent_shape", [4, 0, 5]), ("dims", 0), ("channels", 2)]
)
def test_metadata_that_no_image_fits_is_one_line(
    score, trained, images: Path, tmp_path: Path, field: str, value: object
) -> None:
    proto = onnx.load(trained.model)
    for item in proto.metadata_props:
        if item.key == METADATA_KEY:
            item.value = json.dumps(json.loads(item.value) | {field: value})
    onnx.save(proto, tmp_path / "model.onnx")
    ended = replace(score, model=str(tmp_path / "model.onnx")).run(images, tmp_path / "out")
    assert ended.code == 2
    assert f"its metadata field '{field}" in ended.lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thumbnail", np.zeros((256, 9, 9, 3), np.float32)),
        ("thumbnail", np.zeros((256, 9, 9), np.uint8)),
        ("thumbnail_size", np.full((256, 2), 500, np.int32)),
        ("embedding", np.full((256, 8), np.nan, np.float32)),
    ],
)
def test_a_gallery_of_something_else_is_one_line(
    score, trained, images: Path, tmp_path: Path, name: str, value: np.ndarray
) -> None:
    bundle = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    with safe_open(bundle / "gallery.safetensors", framework="numpy") as file:
        facts, tensors = file.metadata(), {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
    value = value[: len(tensors["embedding"])]
    save_file(tensors | {name: value}, bundle / "gallery.safetensors", facts)
    ended = replace(score, model=str(bundle)).run(images, tmp_path / "out")
    assert ended.code == 2
    assert "gallery.safetensors is not a gallery of good images" in ended.lines[0]


@pytest.mark.parametrize("damage", [cut, empty, no_text])
def test_what_a_model_was_trained_on_is_not_guessed(trained, tmp_path: Path, damage: Callable) -> None:
    bundle = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    assert find_model(bundle).trained_on
    damage(bundle / "split.json")
    with pytest.raises(ModelError, match=r"split.json cannot be read as the list of training images"):
        assert find_model(bundle).trained_on


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_card_stops_nothing(verb, bundle: Path, images: Path, tmp_path: Path, damage: Callable) -> None:
    damage(bundle / "card.md")
    assert replace(verb, model=str(bundle)).run(images, tmp_path / "out").code == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_forgotten_and_their_images_done_again(
    verb, stable_bytes, images: Path, tmp_path: Path, damage: Callable
) -> None:
    out = tmp_path / "out"
    verb.run(images, out)
    before = stable_bytes(out)
    (shard,) = out.glob(".kintsugi-run/shards-*/*.parquet")
    damage(shard)
    ended = verb.run(images, out)
    assert ended.code == 0
    assert f"warning: {shard} was damaged and is deleted: its images are processed again" in ended.lines
    assert stable_bytes(out) == before
    assert "10 of 10 images are already done" in verb.run(images, out).lines


def test_rows_that_changed_by_a_bit_do_not_count(score, stable_bytes, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score.run(images, out)
    before = stable_bytes(out)
    (shard,) = out.glob(".kintsugi-run/shards-*/*.parquet")
    column = pq.read_metadata(shard).row_group(0).column(pq.read_schema(shard).names.index("score"))
    data = bytearray(shard.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    shard.write_bytes(data)
    score.run(images, out)
    assert stable_bytes(out) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["results.parquet", "results.csv", "run.json", "report.html", ".kintsugi-run/lock"])
def test_damaged_results_are_written_again(
    verb, stable_bytes, images: Path, tmp_path: Path, name: str, damage: Callable
) -> None:
    out = tmp_path / "out"
    verb.run(images, out)
    before = stable_bytes(out)
    damage(out / name)
    assert verb.run(images, out).code == 0
    assert stable_bytes(out) == before


@pytest.mark.parametrize("name", ["results.parquet", "run.json"])
def test_no_report_is_made_of_damaged_results(score, images: Path, tmp_path: Path, name: str) -> None:
    score.run(images, tmp_path / "out")
    cut(tmp_path / "out" / name)
    with pytest.raises(FolderError, match=rf"{name} (is damaged|cannot be read).*[Ss]tart the run again"):
        rebuild_report(tmp_path / "out")


def test_rows_that_lead_out_of_the_folder_delete_nothing(verb, images: Path, tmp_path: Path) -> None:
    """An output folder that somebody else has made."""
    out, mine = tmp_path / "out", tmp_path / "mine.png"
    mine.write_bytes(b"mine")
    verb.run(images, out)
    (shard,) = out.glob(".kintsugi-run/shards-*/*.parquet")
    for names in (["../../mine"] * 10, [str(tmp_path / "mine")] * 10):
        table = pq.read_table(shard)
        for column, suffix in (("path", ""), ("output", ".png")):
            index = table.column_names.index(column)
            table = table.set_column(index, column, pa.array([name + suffix for name in names]))
        pq.write_table(table, shard.with_name("foreign.parquet"))
        assert verb.run(images, out).code == 0
        assert mine.read_bytes() == b"mine"


def test_names_of_models_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "../../x"\ntask = "reconstruct"\n[data]\ntrain = "good"\n')
    with pytest.raises(JobError, match=r"'../../x' is not a model name: use letters, digits, '.', '_' and '-'"):
        load_job(tmp_path / "job.toml")


def test_the_second_of_two_writers_says_so_and_stops(verb, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    verb.run(images, out)
    code = "import sys; from flows.cli import main; sys.argv = ['kintsugi', *sys.argv[1:]]; main()"
    words = [sys.executable, "-c", code, *verb.words(images, out)]
    with locked(out / ".kintsugi-run" / "lock"):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: another run is writing to {out}; wait for it, or give another folder\n"
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_the_verbs_keep_out_of_each_other_s_results(score, restore, images: Path, tmp_path: Path) -> None:
    score.run(images, tmp_path / "out")
    ended = restore.run(images, tmp_path / "out")
    assert ended.code == 2
    assert ended.lines[0].endswith("holds the results of `kintsugi score`: give another --out to restore")
