"""Registering and fetching: every byte is kept, and every changed one is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.errors import DigestError, ModelError, RegistryError
from pipelines.models.model_file import METADATA_KEY, Metadata, sha256_of
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun


def test_registering_keeps_every_byte_and_moves_no_alias(
    registry: Registry,
    home: Path,
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    stored: Callable[..., Path],
    metadata: Metadata,
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    digest = sha256_of(bundle / "model.onnx")
    with TrackedRun("tiles") as run:
        version = registry.register(
            "tiles", bundle, run_id=run.run_id, metrics={"image_auroc": 0.984}, tags={"device": "cuda"}
        )
    assert (version.name, version.version, version.aliases) == ("tiles", 1, ())
    assert version.sha256 == digest == sha256_of(stored()) == sha256_of(bundle / "model.onnx")
    assert version.run_id == run.run_id
    assert version.metrics == {"image_auroc": 0.984}
    assert version.tags == {"device": "cuda", "sha256": digest, "task": "reconstruct"}
    assert version.summary == metadata.summary
    fetched = registry.fetch(version)
    assert fetched == home / "models" / digest
    for file in bundle.rglob("*.*"):
        assert (fetched / file.relative_to(bundle)).read_bytes() == file.read_bytes()
    assert registry.get("tiles", "1") == version == registry.get("tiles", "latest")
    assert registry.trail("tiles") == []
    assert list(Path.cwd().iterdir()) == []  # no ./mlruns


def test_other_peoples_scripts_load_it_with_mlflow_alone(
    registry: Registry, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    registry.promote("tiles", 1, reason="first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.address)
    import mlflow.onnx
    import mlflow.pyfunc

    graph = mlflow.onnx.load_model("models:/tiles@champion")
    assert [entry.key for entry in graph.metadata_props] == [METADATA_KEY]
    model = mlflow.pyfunc.load_model("models:/tiles/1")
    image = np.full((2, 8, 8, 3), 2, np.uint8)
    np.testing.assert_allclose(model.predict({"image": image})["elbo"], [-384.0, -384.0])
    # MLflow leaves a file of its own in the store when it loads from a folder: no reason to distrust the version.
    registry.verify(registry.get("tiles", "1"))
    assert registry.fetch(registry.get("tiles", "1")).is_dir()


def test_a_graph_without_our_metadata_takes_task_and_summary_from_the_tags(
    registry: Registry, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", metadata=False)
    with TrackedRun("tiles") as run:
        version = registry.register("tiles", bundle, run_id=run.run_id, tags={"task": "denoise", "summary": "Quiet."})
    assert (version.tags["task"], version.summary) == ("denoise", "Quiet.")


def test_registering_again_from_the_same_run_is_the_same_version_or_refused(
    registry: Registry, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with TrackedRun("tiles") as run:
        first = registry.register("tiles", bundle, run_id=run.run_id)
        assert registry.register("tiles", bundle, run_id=run.run_id) == first
        (bundle / "card.md").write_text("changed", encoding="utf-8")
        with pytest.raises(RegistryError, match=r"already holds tiles/1.*new run"):
            registry.register("tiles", bundle, run_id=run.run_id)
    assert len(registry.versions("tiles")) == 1
    registry.verify(first)


def test_a_fetched_bundle_can_be_registered_again(
    registry: Registry, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with TrackedRun("tiles") as run:
        first = registry.register("tiles", bundle, run_id=run.run_id)
    with TrackedRun("tiles-copy") as run:
        second = registry.register("tiles-copy", registry.fetch(first), run_id=run.run_id)
    assert second.sha256 == first.sha256
    assert second.digests.keys() == first.digests.keys()


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "", " tiles", "..", "it's", "tiles\n", "x" * 101])
def test_names_that_cannot_be_referred_to_are_refused(
    registry: Registry, tmp_path: Path, name: str, make_bundle: Callable[..., Path]
) -> None:
    with pytest.raises(RegistryError, match="cannot be a model name: use letters"):
        registry.register(name, make_bundle(tmp_path / "bundle"), run_id="0" * 32)


def test_what_cannot_be_registered_leaves_no_model_behind(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_bundle: Callable[..., Path],
    stored: Callable[..., Path],
    flip_a_byte: Callable[[Path], None],
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(RegistryError, match=r"Run with id=0{32} not found"):
        registry.register("tiles", bundle, run_id="0" * 32)
    with TrackedRun("tiles") as run:
        with pytest.raises(ModelError, match=r"holds no model\.onnx"):
            registry.register("tiles", tmp_path, run_id=run.run_id)
        (bundle / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(ModelError, match="not a valid ONNX file"):
            registry.register("tiles", bundle, run_id=run.run_id)

        upload = MlflowClient.log_artifact

        def damaging(client: MlflowClient, run_id: str, path: str, folder: str) -> None:
            upload(client, run_id, path, folder)
            if path.endswith("calibration.json"):
                flip_a_byte(stored("calibration.json"))

        monkeypatch.setattr(MlflowClient, "log_artifact", damaging)
        shutil.rmtree(bundle)
        with pytest.raises(DigestError, match=r"upload of 'tiles'.*calibration\.json has sha256"):
            registry.register("tiles", make_bundle(bundle), run_id=run.run_id)
    assert registry.models() == []


@pytest.mark.parametrize("file", ["model.onnx", "calibration.json", "pictures/worst.png", "MLmodel"])
def test_one_changed_byte_in_the_store_is_found(
    registry: Registry,
    register: Callable[..., None],
    home: Path,
    file: str,
    stored: Callable[..., Path],
    flip_a_byte: Callable[[Path], None],
) -> None:
    register()
    version = registry.get("tiles", "1")
    registry.verify(version)
    expected = sha256_of(stored(file))
    flip_a_byte(stored(file))
    for read in (registry.verify, registry.fetch):
        with pytest.raises(DigestError) as caught:
            read(version)
        message = str(caught.value)
        assert f"tiles/1 is damaged or was changed in the registry: {file} has sha256" in message
        assert expected in message
        assert sha256_of(stored(file)) in message
        assert "choose another version" in message
    with pytest.raises(DigestError):
        registry.promote("tiles", 1, reason="unseen")
    assert registry.get("tiles", "1").aliases == ()
    assert not (home / "models" / version.sha256).exists()  # nothing that could be taken for a good copy


def test_a_lost_file_is_told_apart_from_a_changed_one(
    registry: Registry, register: Callable[..., None], stored: Callable[..., Path]
) -> None:
    register()
    stored("card.md").unlink()
    with pytest.raises(DigestError, match=r"card\.md is missing; registered with sha256 [0-9a-f]{64}"):
        registry.verify(registry.get("tiles", "1"))


def test_a_damaged_copy_is_replaced_and_a_good_one_needs_no_registry(
    registry: Registry, register: Callable[..., None], home: Path, flip_a_byte: Callable[[Path], None]
) -> None:
    register()
    version = registry.get("tiles", "1")
    folder = registry.fetch(version)
    flip_a_byte(folder / "calibration.json")
    (folder / "card.md").unlink()
    assert registry.fetch(version) == folder
    assert sha256_of(folder / "calibration.json") == version.digests["calibration.json"]
    assert (folder / "card.md").is_file()
    shutil.rmtree(home / "artifacts")
    assert registry.fetch(version) == folder
    flip_a_byte(folder / "model.onnx")
    with pytest.raises(DigestError, match="is missing"):
        registry.fetch(version)
    assert sorted(path.name for path in (home / "models").iterdir() if path.is_dir()) == [version.sha256]


def test_versions_that_share_a_model_file_do_not_share_a_copy(
    registry: Registry, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    versions = []
    for scores in ("[1, 2]", "[1, 2, 3]"):
        bundle = make_bundle(tmp_path / scores)
        (bundle / "calibration.json").write_text(f'{{"scores": {scores}}}', encoding="utf-8")
        with TrackedRun("tiles") as run:
            versions.append(registry.register("tiles", bundle, run_id=run.run_id))
    assert versions[0].sha256 == versions[1].sha256
    folders = [registry.fetch(version) for version in (*versions, *versions)]
    assert folders[:2] == folders[2:]
    read = [json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["scores"] for folder in folders[:2]]
    assert read == [[1, 2], [1, 2, 3]]


def test_a_version_of_somebody_else_is_listed_but_not_run(registry: Registry, home: Path) -> None:
    client = MlflowClient(registry.address)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(home / "x"), tags={"digests": "many", "metric.speed": "fast", "a": "b"})
    (version,) = registry.versions("theirs")
    assert (version.sha256, version.metrics, version.digests, version.run_id) == ("", {}, {}, None)
    assert version.tags == {"digests": "many", "metric.speed": "fast", "a": "b"}
    for read in (registry.fetch, registry.verify):
        with pytest.raises(ModelError, match="theirs/1 was not registered by Kintsugi"):
            read(version)
