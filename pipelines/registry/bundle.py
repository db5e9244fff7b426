"""A model's folder on its way into the registry: digests, and the files that MLflow wants beside the model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.errors import ModelError
from pipelines.models.model_file import METADATA_KEY, MODEL_FILE, CommonMetadata, sha256_of
from pipelines.registry.artifacts import FOLDER
from pipelines.registry.connection import quiet

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MLFLOW_FILES = frozenset({"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"})
"""Files of an MLflow model directory: written anew for each version, so not taken from a bundle that was fetched."""

REQUIREMENTS = ("mlflow", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A file that is not the one that was registered."""

    file: str
    expected: str
    found: str | None  # None: there is no such file

    def __str__(self) -> str:
        """Both digests in full, so that they can be looked up."""
        found = f"has sha256 {self.found}" if self.found else "is missing"
        return f"{self.file} {found}; registered with sha256 {self.expected}"


def bundle_files(bundle: Path) -> list[str]:
    """The files that a version keeps, relative to the bundle, sorted. Hidden files and MLflow's own are left out.

    Raises:
        ModelError: There is no such folder, or no model.onnx in it.
    """
    if not (bundle / MODEL_FILE).is_file():
        msg = f"{bundle} holds no {MODEL_FILE}, so it cannot be registered: give the folder of the export"
        raise ModelError(msg)
    relative = (path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    kept = (path for path in relative if not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in kept if path.as_posix() not in MLFLOW_FILES)


def digests_of(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file."""
    return {file: sha256_of(folder / file) for file in files}


def first_mismatch(folder: Path, digests: Mapping[str, str]) -> Mismatch | None:
    """Read every file of the folder and compare; None when all are as registered."""
    for file, expected in digests.items():
        found = sha256_of(folder / file) if (folder / file).is_file() else None
        if found != expected:
            return Mismatch(file, expected, found)
    return None


def write_mlflow_files(model: Path, folder: Path, *, run_id: str) -> CommonMetadata | None:
    """Write what makes the bundle an MLflow model that `mlflow.onnx` and `mlflow.pyfunc` load.

    MLflow serialises the graph that it is given once more, which changes the file's digest: its copy is dropped and the
    model's own file takes its place. pyfunc runs on the CPU: asking for a GPU that is not there prints errors in red.

    Args:
        model: The model.onnx to be registered.
        folder: Where the files go; must not exist.
        run_id: The run that trained it.

    Returns:
        The model's metadata; None when it carries none of ours.

    Raises:
        ModelError: The file is not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(model, load_external_data=False)
        onnx.checker.check_model(graph)
    except (DecodeError, onnx.checker.ValidationError) as error:
        msg = f"{model} is not a valid ONNX file ({str(error).splitlines()[0]}): export it again"
        raise ModelError(msg) from error
    with quiet():
        import mlflow.onnx
        from mlflow.models import Model

        mlflow.onnx.save_model(
            graph,
            folder,
            mlflow_model=Model(run_id=run_id, artifact_path=FOLDER),
            signature=_signature(graph),
            pip_requirements=_requirements(),  # else MLflow runs the model in a new process to find out: 12 s
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
    (folder / MODEL_FILE).unlink()
    text = next((entry.value for entry in graph.metadata_props if entry.key == METADATA_KEY), None)
    try:
        return CommonMetadata.model_validate_json(text) if text else None
    except ValidationError:
        return None


def _requirements() -> list[str]:
    """Pinned requirements of whoever loads the model with MLflow."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pinned


def _signature(graph: Any) -> ModelSignature:  # noqa: ANN401  # onnx has no types
    """Names, types and shapes of inputs and outputs, -1 where a dimension is free."""
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    def schema(values: Iterable[Any]) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for value in values:
            tensor = value.type.tensor_type
            shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            specs.append(TensorSpec(dtype, shape, value.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(graph.graph.input), outputs=schema(graph.graph.output))
