"""Registries to break: a real MLflow store in SQLite for each test, copied from one that is made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from pipelines.models.model_file import METADATA_KEY, Metadata
from pipelines.registry.connection import Connection
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun

METADATA = Metadata(
    name="tiles",
    task="reconstruct",
    summary="Finds what is abnormal in tiles.",
    channels=3,
    bit_depth=8,
    value_range=(0, 255),
    size=(64, 64),
    size_multiple=8,
    halo=None,
    dims=12_288,
    likelihood="gaussian",
    latent_shape=(4, 8, 8),
    samples=4,
    score="mean",
    outputs={"elbo": "nats"},
    licence=None,
    git_commit=None,
    data_digest="ab" * 32,
    images={"train": 10},
    kintsugi="0.1.0",
)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, made once: that takes seconds."""
    path = tmp_path_factory.getbasetemp() / "template" / "mlflow.db"
    if not path.exists():
        Connection(f"sqlite:///{path}").client.search_experiments()
    return path


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded registry of its own; the working folder is empty, and is looked at afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("KINTSUGI_HOME", str(home))
    monkeypatch.setenv("KINTSUGI_ACTOR", "nightly training")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def register(registry: Registry, tmp_path: Path, make_bundle: Callable[..., Path]) -> Callable[..., None]:
    """Registers a new version of a model from a run of its own."""
    numbers = iter(range(100))

    def _register(name: str = "tiles", **arguments: object) -> None:
        bundle = make_bundle(tmp_path / f"bundle{next(numbers)}", weight=float(next(numbers)))
        with TrackedRun(name) as run:
            registry.register(name, bundle, run_id=run.run_id, **arguments)

    return _register


@pytest.fixture
def metadata() -> Metadata:
    """What `make_bundle` writes into its graphs."""
    return METADATA


@pytest.fixture
def make_bundle() -> Callable[..., Path]:
    """Writes a tiny scoring graph, and the files that lie beside a model, into a new folder."""
    return _make_bundle


@pytest.fixture
def stored(home: Path) -> Callable[..., Path]:
    """The registry's own copy of a file, where there is one version."""

    def _stored(file: str = "model.onnx") -> Path:
        (path,) = home.glob(f"artifacts/*/*/artifacts/model/{file}")
        return path

    return _stored


@pytest.fixture
def flip_a_byte() -> Callable[[Path], None]:
    """Changes one bit of a file."""

    def _flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return _flip


def _make_bundle(folder: Path, weight: float = 1.0, *, metadata: bool = True) -> Path:
    """A tiny scoring graph: elbo = -weight * the sum of the pixels; and the files that lie beside a model."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["elbo"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("weight", TensorProto.FLOAT, [1], [-weight]),
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    elbo = helper.make_tensor_value_info("elbo", TensorProto.FLOAT, ["N"])
    model = helper.make_model(
        helper.make_graph(nodes, "score", [image], [elbo], constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    if metadata:
        helper.set_model_props(model, {METADATA_KEY: METADATA.model_dump_json()})
    (folder / "pictures").mkdir(parents=True)
    # A field that onnx does not know, as a newer exporter may write: serialising the model again would drop or move it.
    (folder / "model.onnx").write_bytes(model.SerializeToString() + b"\xfa\x3f\x03abc")
    (folder / "calibration.json").write_text('{"scores": [1, 2]}', encoding="utf-8")
    (folder / "card.md").write_text("# Tiles\n", encoding="utf-8")
    (folder / "pictures" / "worst.png").write_bytes(b"\x89PNG")
    return folder
