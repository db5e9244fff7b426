"""Loading a model file: noise that repeats, outputs on demand, and files that are not ours."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pipelines.errors import CalibrationError, DigestError, ModelError
from pipelines.models.model_file import METADATA_KEY, ModelFile, sha256_of
from pipelines.models.providers import CPU, CUDA, Probe, choose_providers, probe
from pipelines.models.reference import split_ref
from pipelines.models.session import Session, keyed_noise
from pipelines.registry.resolve import find_model


def model_at(path: Path) -> ModelFile:
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))


@pytest.fixture(scope="module")
def session(trained) -> Session:
    return Session(model_at(trained.model), device="cpu")


@pytest.fixture
def pixels(session: Session) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 90, 70, session.metadata.channels), dtype=np.uint8)


def test_noise_is_a_function_of_the_content() -> None:
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    assert np.array_equal(keyed_noise(one, (2, 3)), keyed_noise(one, (2, 3)))
    assert not np.array_equal(keyed_noise(one, (2, 3)), keyed_noise(two, (2, 3)))
    many = keyed_noise(one, (100_000,))
    assert abs(many.mean()) < 0.02
    assert many.std() == pytest.approx(1, abs=0.02)
    assert keyed_noise(one, (3,)).tolist() == pytest.approx(KNOWN)  # numpy must not change it under our feet


KNOWN = [-0.6118469834327698, -0.6070930361747742, -0.49200746417045593]


def test_only_what_is_asked_for_comes_back(session: Session, pixels: np.ndarray) -> None:
    digest = "0" * 64
    everything = session.run(pixels, [digest])
    assert set(session.run(pixels, [digest], ("score",))) == {"score"}
    assert session.run(pixels, [digest], ("score",))["score"] == everything["score"]
    assert session.run(pixels, [digest], ("restored",))["restored"].shape == pixels.shape


def test_metadata_tells_the_contract(session: Session) -> None:
    metadata = session.metadata
    assert (metadata.task, metadata.channels, metadata.bit_depth) == ("reconstruct", 1, 8)
    assert metadata.value_range == (0, 255)
    assert metadata.dims == metadata.size[0] * metadata.size[1]
    assert set(metadata.outputs) >= {"restored", "anomaly_map", "elbo", "rate", "distortion", "score", "embedding"}
    assert sum(metadata.images.values()) == 72


def test_a_file_of_others_is_refused(tmp_path: Path, trained) -> None:
    proto = onnx.load(trained.model)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"was not exported by Kintsugi: it has no 'kintsugi' metadata"):
        Session(model_at(tmp_path / "other.onnx"), device="cpu")


def test_unknown_metadata_is_refused_by_name(tmp_path: Path, trained) -> None:
    proto = onnx.load(trained.model)
    for item in proto.metadata_props:
        if item.key == METADATA_KEY:
            item.value = item.value.replace('"format": 1', '"format": 3')
    onnx.save(proto, tmp_path / "newer.onnx")
    with pytest.raises(ModelError, match=r"metadata field 'format' is not supported .*; upgrade kintsugi"):
        Session(model_at(tmp_path / "newer.onnx"), device="cpu")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" * 100])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.onnx is not a model|has no 'kintsugi' metadata"):
        Session(model_at(tmp_path / "x.onnx"), device="cpu")


def test_calibration_of_another_file_is_refused(tmp_path: Path, trained) -> None:
    shutil.copytree(trained.bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "model.onnx"
    proto = onnx.load(path)
    proto.doc_string = "touched"
    onnx.save(proto, path)
    with pytest.raises(CalibrationError, match=r"belongs to the model file"):
        model_at(path).calibration()


def test_without_a_gpu_the_cpu_is_asked_for_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    found = probe()
    assert found.reason
    if not found.cuda:
        assert choose_providers("auto") == [CPU]
        with pytest.raises(ModelError, match=r"KINTSUGI_DEVICE is cuda, but"):
            choose_providers("cuda")
    assert capfd.readouterr().err == ""


def test_a_gpu_that_was_away_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: asked.append(1) or [CPU])
    assert not probe().cuda
    assert not probe().cuda
    assert len(asked) == 2


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Every session of ONNX Runtime that is opened, with what it was given; on a machine that has a GPU or none."""
    calls: list[dict] = []
    real = onnxruntime.InferenceSession

    def open_session(content: bytes, options: onnxruntime.SessionOptions, *, providers: list) -> object:
        calls.append({"options": options, "providers": providers})
        return real(content, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return calls


def test_threads_sleep_while_they_wait_and_are_as_many_as_there_are_cores(trained, opened, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.models.session.usable_cores", lambda: 3)
    Session(model_at(trained.model), device="cpu")
    Session(model_at(trained.model), device="cpu", threads=2)
    assert [call["options"].intra_op_num_threads for call in opened] == [3, 2]
    assert {call["options"].get_session_config_entry("session.intra_op.allow_spinning") for call in opened} == {"0"}


def test_cuda_is_asked_for_whole_floats_and_the_same_sums_each_time(trained, opened, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.models.providers.probe", lambda: Probe(cuda=True, reason="1 GPU(s)"))
    Session(model_at(trained.model), device="auto")
    Session(model_at(trained.model), device="cpu")
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert [call["providers"] for call in opened] == [[(CUDA, options), CPU], [CPU]]
    assert [call["options"].use_deterministic_compute for call in opened] == [True, False]


@pytest.mark.parametrize(
    ("ref", "parts"),
    [
        ("tiles", ("tiles", "champion")),
        ("tiles@challenger", ("tiles", "challenger")),
        ("tiles/12", ("tiles", "12")),
        ("models:/tiles/3", ("tiles", "3")),
        ("models:/tiles@previous", ("tiles", "previous")),
    ],
)
def test_references(ref: str, parts: tuple[str, str]) -> None:
    assert split_ref(ref) == parts


@pytest.mark.parametrize("ref", ["", "tiles@", "tiles/x", "a/b/c", "@champion", "runs:/x", "models:/"])
def test_what_is_not_a_reference_lists_the_forms(ref: str) -> None:
    with pytest.raises(ModelError, match=r"is not a model reference: use name@champion"):
        split_ref(ref)


def test_missing_files_and_unknown_builtins_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the model file .*nothing\.onnx does not exist"):
        find_model(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match=r"there is no built-in model 'magic'"):
        find_model("builtin:magic")


def test_a_file_that_is_replaced_after_it_was_found_is_not_run_under_the_old_digest(trained, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(trained.model, path)
    found = find_model(path)
    other = onnx.load(path)
    other.producer_name = "another export"
    onnx.save(other, path)
    with pytest.raises(DigestError, match=f"was {found.sha256} and is {sha256_of(path)}"):
        Session(found, device="cpu")
    assert Session(find_model(path), device="cpu").metadata.name == "tiles"
