"""The closest good images: in units of the gallery's spread, with thumbnails as the images are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pipelines.errors import ModelError
from pipelines.images import ImageFile, find_images
from pipelines.models.gallery import Gallery
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.score import score_folder
from pipelines.training.bundle import write_gallery


def gallery_of(folder: Path, embedding: np.ndarray, **changes: Any) -> Gallery:
    n = len(embedding)
    thumbnails = np.zeros((n, 96, 96, 3), np.uint8)
    thumbnails[:, :48] = 200
    tensors = {
        "embedding": embedding.astype(np.float32),
        "thumbnail": thumbnails,
        "thumbnail_size": np.tile(np.array([48, 96], np.int32), (n, 1)),
    } | changes.pop("tensors", {})
    facts = {"names": json.dumps([f"a/{i}.png" for i in range(n)]), "model_sha256": "ab" * 32} | changes
    save_file(tensors, folder / "gallery.safetensors", metadata=facts)
    found = Gallery.of(model_in(folder))
    assert found is not None
    return found


def model_in(folder: Path) -> ModelFile:
    return ModelFile(path=folder / "model.onnx", sha256="ab" * 32, ref="x")


def test_distances_are_in_the_gallerys_spread(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    embedding = generator.normal(0, 1, (50, 3)) * (100.0, 1.0, 0.01) + (5.0, -3.0, 0.0)
    gallery = gallery_of(tmp_path, embedding)
    asked = embedding[7] + (10.0, 0.1, 0.0)
    standard = (embedding - embedding.mean(axis=0)) / np.maximum(
        embedding.std(axis=0), 0.01 * embedding.std(axis=0).max()
    )
    code = (asked - embedding.mean(axis=0)) / np.maximum(embedding.std(axis=0), 0.01 * embedding.std(axis=0).max())
    expected = np.sqrt(((standard - code) ** 2).mean(axis=1))
    found = gallery.closest(asked)
    assert [near.name for near in found] == [f"a/{i}.png" for i in np.argsort(expected)[:3]]
    assert [near.distance for near in found] == pytest.approx(np.sort(expected)[:3].tolist(), rel=1e-4)
    assert found[0].name == "a/7.png"


def test_a_dimension_that_the_model_does_not_use_is_no_measure(tmp_path: Path) -> None:
    embedding = np.array([[0.0, 0.0, 1e-9], [1.0, 0.0, 0.0], [2.0, 0.0, 2e-9], [3.0, 0.0, 0.0]])
    found = gallery_of(tmp_path, embedding).closest(np.array([2.1, 0.0, -1e-6]))
    assert [near.name for near in found] == ["a/2.png", "a/3.png", "a/1.png"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_small_or_uniform_gallery_gives_what_it_has(tmp_path: Path, count: int) -> None:
    found = gallery_of(tmp_path, np.ones((count, 4))).closest(np.ones(4))
    assert [(near.name, near.distance) for near in found] == [(f"a/{i}.png", 0.0) for i in range(count)]


def test_thumbnails_keep_their_aspect_and_older_ones_fill_their_square(tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(gallery_of(tmp_path, np.ones((2, 4))).thumbnail(1)))
    assert picture.size == (96, 48)
    assert np.asarray(picture).min() > 190
    older = {"embedding": np.ones((1, 2), np.float32), "thumbnail": np.zeros((1, 96, 96, 3), np.uint8)}
    save_file(older, tmp_path / "gallery.safetensors", metadata={"names": '["x.png"]'})
    gallery = Gallery.of(model_in(tmp_path))
    assert gallery is not None
    assert Image.open(io.BytesIO(gallery.thumbnail(0))).size == (96, 96)


def test_no_gallery_is_none_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gallery.safetensors"
    assert Gallery.of(model_in(tmp_path)) is None
    with pytest.raises(
        ModelError, match=r"belongs to the model file cdcdcdcdcdcd, not to abababababab.*delete the file"
    ):
        gallery_of(tmp_path, np.ones((2, 4)), model_sha256="cd" * 32)
    with pytest.raises(ModelError, match=r"1 names, 2 thumbnails|cannot reshape"):
        gallery_of(tmp_path, np.ones((2, 4)), names='["one.png"]')
    for data in (b"", b"no tensors", path.read_bytes()[:100]):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"gallery\.safetensors is not a gallery"):
            Gallery.of(model_in(tmp_path))


@pytest.fixture
def session(trained, tmp_path: Path) -> Session:
    (tmp_path / "copy").mkdir()
    path = tmp_path / "copy" / "model.onnx"
    path.write_bytes(trained.model.read_bytes())
    return Session(ModelFile(path=path, sha256=sha256_of(path), ref="x"), device="cpu")


def test_the_gallery_is_spread_over_the_training_set(
    trained, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.training.bundle.GALLERY_IMAGES", 5)
    files = find_images(trained.images)
    write_gallery(session, files)
    gallery = Gallery.of(session.model)
    assert gallery is not None
    places = [[file.relative for file in files].index(name) for name in gallery.names]
    assert places == [round(i * (len(files) - 1) / 4) for i in range(5)]


def test_a_training_image_is_closest_to_itself(trained, session: Session, tmp_path: Path) -> None:
    files = [ImageFile(file.path, file.relative, file.size, file.mtime_ns) for file in find_images(trained.images)[:12]]
    write_gallery(session, files)
    (tmp_path / "calibration.json").write_bytes((trained.bundle / "calibration.json").read_bytes())
    (tmp_path / "some").mkdir()
    for file in files[:4]:
        (tmp_path / "some" / file.path.name).write_bytes(file.path.read_bytes())
    score_folder(tmp_path / "some", session.model, tmp_path / "out", calibration=tmp_path / "calibration.json")
    rows = pq.read_table(tmp_path / "out" / ".kintsugi-run" / "gallery.parquet").to_pylist()
    assert len(rows) == 4
    for row in rows:
        nearest = row["neighbours"]
        assert (nearest[0]["name"], nearest[0]["distance"]) == (row["path"], pytest.approx(0.0, abs=1e-5))
        assert [near["distance"] for near in nearest] == sorted(near["distance"] for near in nearest)
        with (
            Image.open(io.BytesIO(nearest[0]["thumbnail"])) as small,
            Image.open(tmp_path / "some" / row["path"]) as whole,
        ):
            assert max(small.size) == 96
            assert small.width / small.height == pytest.approx(whole.width / whole.height, rel=0.02)
