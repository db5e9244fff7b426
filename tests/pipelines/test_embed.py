"""Embeddings of a folder: a row for every file, in one Parquet file that appears whole."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipelines import embed, embed_folder
from pipelines.embed import EMBEDDINGS, _confirm_copies
from pipelines.errors import EmptyFolderError, FolderError, ModelError
from pipelines.images import Decoded, Failed, FileList, Found, ImageFile, find_images, list_images
from pipelines.images.resaved import SIDE, saved_again
from pipelines.latents.vectors import StoredVectors
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import METADATA_KEY, ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model


def rows_in(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def resaved(source: Path, to: Path, *, levels: int = 0, **options: object) -> None:
    with Image.open(source) as image:
        pixels = np.clip(np.asarray(image).astype(int) + levels, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(to, **options)


def test_every_file_has_a_row_with_what_the_graph_says_of_it(images: Path, trained, tmp_path: Path) -> None:
    (images / "good" / "broken.jpg").write_bytes(b"\xff\xd8")
    shutil.copy(next((images / "crack").iterdir()), images / "top.jpg")
    summary = embed_folder(images, trained.model, tmp_path / "out" / "e.parquet")
    table = pq.read_table(tmp_path / "out" / "e.parquet")
    assert table.schema.equals(EMBEDDINGS)
    rows = {row["path"]: row for row in table.to_pylist()}
    assert list(rows) == sorted(rows)
    assert (summary.files, summary.ok, summary.failed, summary.latents) == (18, 17, 1, 4)
    broken = rows.pop("good/broken.jpg")
    assert broken["status"] == "failed"
    assert broken["error"]
    assert (broken["label"], broken["model"]) == ("good", "tiles")
    assert all(broken[name] is None for name in EMBEDDINGS.names[7:])
    assert {row["label"] for row in rows.values()} == {"good", "crack", None}
    session = Session(find_model(trained.model), device="cpu")
    for image in decode_for(find_images(images), session.metadata):
        if row := rows.get(image.file.relative):
            found = session.run(image.pixels[None], [image.sha256], ("embedding", "embedding_scale"))
            np.testing.assert_allclose(row["embedding"], found["embedding"][0], rtol=1e-6)
            np.testing.assert_allclose(row["embedding_scale"], found["embedding_scale"][0], rtol=1e-6)
            assert row["sha256"] == image.sha256 == sha256_of(images / row["path"])
    mean = {path: np.array(row["embedding"]) for path, row in rows.items()}
    scale = np.sqrt(np.mean([np.square(row["embedding_scale"]) for row in rows.values()], axis=0))
    for path, row in rows.items():
        apart = {other: np.linalg.norm((mean[path] - mean[other]) / scale) for other in rows if other != path}
        assert row["nearest_distance"] == pytest.approx(min(apart.values()), rel=1e-4, abs=1e-6)
        assert apart[row["nearest"]] == pytest.approx(min(apart.values()), rel=1e-4, abs=1e-6)
    facts = json.loads(table.schema.metadata[METADATA_KEY.encode()])
    assert facts.pop("unit") == "posterior standard deviations"
    assert facts == {"alike": summary.metric.limit, "model_sha256": sha256_of(trained.model)}


def test_files_that_are_not_read_are_named(images: Path, trained, tmp_path: Path, caplog) -> None:
    (images / "a.arw").write_bytes(b"x")
    embed_folder(images, trained.model, tmp_path / "e.parquet", neighbours=False)
    assert any(message.startswith("left out 1 file: 1 .arw (camera raw") for message in caplog.messages)
    facts = json.loads(pq.read_schema(tmp_path / "e.parquet").metadata[METADATA_KEY.encode()])
    assert [row["suffix"] for row in facts["left_out"]] == [".arw"]


def test_most_copies_that_were_saved_again_are_named(images: Path, trained, tmp_path: Path) -> None:
    originals = sorted((images / "good").iterdir())
    (images / "z").mkdir()
    shutil.copy(originals[0], images / "z-same.jpg")
    for path in originals:
        resaved(path, images / "z" / path.name, levels=1, quality=90)
    summary = embed_folder(images, trained.model, tmp_path / "e.parquet")
    rows = {row["path"]: row for row in rows_in(tmp_path / "e.parquet")}
    assert rows["z-same.jpg"]["duplicate_of"] == f"good/{originals[0].name}"
    named = [rows[f"z/{path.name}"]["duplicate_of"] for path in originals]
    assert sum(name == f"good/{path.name}" for name, path in zip(named, originals, strict=True)) >= 9
    assert summary.duplicates == sum(row["duplicate_of"] is not None for row in rows.values())
    assert not any(rows[f"good/{path.name}"]["duplicate_of"] for path in originals[:1])


def test_copies_that_the_model_confuses_with_something_else_are_still_copies_of_each_other(tmp_path: Path) -> None:
    """The model says the same of all: looked at, one is another thing, and the rest are two pairs."""
    random = np.random.default_rng(0)
    one, other, third = (random.integers(0, 255, (32, 32), np.uint8) for _ in range(3))
    for name, pixels in zip("abcdef", (one, other, third, other, third, one), strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    session = SimpleNamespace(metadata=SimpleNamespace(channels=1, bit_depth=8))
    copies = np.array([-1, 0, 0, 0, 0, 0])
    with StoredVectors(SIDE * SIDE, tmp_path) as looks:
        found = _confirm_copies(session, list_images(tmp_path).files, np.arange(6), copies, lambda _: looks)
    assert found.tolist() == [-1, -1, -1, 1, 2, 0]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_saving_again_changes_little_however_many_bits_a_camera_fills(bits: int) -> None:
    rows, columns = np.mgrid[:64, :64]
    scene = (0.5 + 0.3 * np.sin(rows / 9) * np.cos(columns / 7)) * 2**bits
    pixels = scene.astype(np.uint16)[:, :, None]
    again = saved_again(pixels)
    assert again.dtype == np.uint16
    assert np.corrcoef(pixels.ravel(), again.ravel())[0, 1] > 0.999
    assert 0 < np.abs(again.astype(float) - pixels).mean() < 0.01 * np.ptp(pixels)


def test_the_same_call_gives_the_same_bytes_and_no_neighbours_where_none_are_wanted(
    images: Path, trained, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        embed_folder(images, trained.model, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert embed_folder(images, trained.model, tmp_path / "b.parquet", neighbours=False).duplicates is None
    assert {row["nearest"] for row in rows_in(tmp_path / "b.parquet")} == {None}
    assert not list(tmp_path.glob(".kintsugi*"))


def test_an_older_model_has_no_scale_and_says_so_once(
    images: Path, trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proto = onnx.load(trained.model)
    (output,) = [output for output in proto.graph.output if output.name == "embedding_scale"]
    proto.graph.output.remove(output)
    for item in proto.metadata_props:
        if item.key == METADATA_KEY:
            document = json.loads(item.value)
            del document["outputs"]["embedding_scale"]
            item.value = json.dumps(document)
    onnx.save(proto, tmp_path / "older.onnx")
    one = min((images / "good").iterdir())
    shutil.copy(one, images / "z-same.jpg")
    with caplog.at_level(logging.WARNING):
        embed_folder(images, tmp_path / "older.onnx", tmp_path / "e.parquet")
    (warning,) = caplog.messages
    assert "the column embedding_scale is null; train the model again" in warning
    rows = rows_in(tmp_path / "e.parquet")
    assert {row["embedding_scale"] for row in rows} == {None}
    assert all(len(row["embedding"]) == 4 and row["nearest_distance"] >= 0 for row in rows)
    assert "z-same.jpg" in {row["path"] for row in rows if row["duplicate_of"]}


def test_what_is_asked_for_must_be_possible(images: Path, trained, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"out\.csv does not end in \.parquet: give a file such as"):
        embed_folder(images, trained.model, tmp_path / "out.csv")
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(FolderError, match=r"d\.parquet is a folder"):
        embed_folder(images, trained.model, tmp_path / "d.parquet")
    with pytest.raises(ModelError, match="builtin:denoise restores images: only anomaly models give embeddings"):
        embed_folder(images, "builtin:denoise", tmp_path / "e.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyFolderError, match="no images under"):
        embed_folder(tmp_path / "empty", trained.model, tmp_path / "e.parquet")
    assert not (tmp_path / "e.parquet").exists()


def test_the_command_ends_with_3_where_files_cannot_be_read(trained, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    resaved(min(trained.images.iterdir()), folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    done = CliRunner().invoke(
        app, ["embed", str(folder), "--model", str(trained.model), "--out", str(tmp_path / "e.parquet")]
    )
    assert done.exit_code == 3
    assert "1 of 2 images embedded, 4 numbers each" in done.output
    assert "1 of 2 files could not be embedded" in done.output
    only, broken = rows_in(tmp_path / "e.parquet")
    assert (only["nearest"], only["nearest_distance"], broken["embedding"]) == (None, None, None)


class Stub:
    """A model of many latents, whose embeddings are drawn by the images' digests."""

    latents, calls, batch_size = 512, 1, 20
    model = SimpleNamespace(folder=Path("nowhere"))

    def __init__(self) -> None:
        self.metadata = SimpleNamespace(
            latent_shape=(self.latents, 1, 1), outputs=("embedding", "embedding_scale"), name="stub"
        )

    def run_images(self, images: list[Decoded], outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        drawn = [np.random.default_rng(int(image.sha256[:8], 16)) for image in images]
        return {name: np.stack([each.random(self.latents, np.float32) + 0.1 for each in drawn]) for name in outputs}

    def close(self) -> None:
        """Nothing to give back."""


def decoded(files: Sequence[ImageFile], *_: object) -> Iterator[Decoded | Failed]:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for file in files:
        digest = hashlib.sha256(file.relative.encode()).hexdigest()
        broken = file.relative.endswith("77.png")
        yield Failed(file, "is broken", digest) if broken else Decoded(file, pixels, 4, 4, 8, digest, None)


def test_vectors_of_a_large_folder_are_on_disk_and_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 embeddings and their scales are 12 MB, and several times as much where neighbours are looked for."""
    files = FileList.of(Path(), (ImageFile(Path(name), name, 1, 1) for name in (f"{i:05}.png" for i in range(3000))))
    monkeypatch.setattr(embed, "list_images", lambda _: Found(files, ()))
    monkeypatch.setattr(embed, "_open", lambda _: Stub())
    monkeypatch.setattr(embed, "decode_for", decoded)
    monkeypatch.setattr(embed.Gallery, "of", lambda _: None)
    monkeypatch.setattr(embed, "BLOCK_FILES", 100)
    monkeypatch.setattr(embed, "GROUP_BYTES", 2**19)
    for name in ("ROWS", "COLUMNS"):
        monkeypatch.setattr(f"pipelines.latents.copies.{name}", 256)
    monkeypatch.setattr("pipelines.latents.vectors.ROWS", 64)
    model = ModelFile(path=tmp_path / "stub.onnx", sha256="0" * 64, ref="stub")
    for out, limit in (("memory", 2**28), ("disk", 2**20)):
        monkeypatch.setattr("pipelines.latents.vectors.IN_MEMORY", limit)
        monkeypatch.setattr("pipelines.latents.copies.IN_MEMORY", limit)
        tracemalloc.start() if out == "disk" else None
        summary = embed_folder("images", model, tmp_path / f"{out}.parquet")
        assert (summary.ok, summary.failed) == (2970, 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14_000_000
    with pq.ParquetFile(tmp_path / "disk.parquet") as file:
        assert file.num_row_groups > 20  # so that no list's offsets are beyond 32 bits
    table = pq.read_table(tmp_path / "disk.parquet")
    assert table.equals(pq.read_table(tmp_path / "memory.parquet"))
    assert table["nearest"].null_count == 30
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["disk.parquet", "memory.parquet"]
