"""Resolve what a user types after --model to a verified file: a path, a built-in model, or a registered version."""

from __future__ import annotations

from pathlib import Path

from pipelines.models.model_file import MODEL_FILE, ModelFile
from pipelines.models.reference import find_model_file, split_ref


def find_model(ref: str | Path) -> ModelFile:
    """Resolve a reference.

    Args:
        ref: `name@champion`, `name@alias`, `name/3`, `models:/...`, a path to an `.onnx` file, or `builtin:NAME`.

    Returns:
        The file, its digest computed; a registered one has been checked against the registry's digest.

    Raises:
        ModelError: It names nothing that is there; the message lists what is.
        DigestError: The file is not the one that was registered.
    """
    if file := find_model_file(ref):
        return file
    text = str(ref)
    name, selector = split_ref(text)
    from pipelines.registry.store import Registry

    registry = Registry()
    version = registry.get(name, selector)
    folder = registry.fetch(version)
    file = ModelFile(path=folder / MODEL_FILE, sha256=version.sha256, ref=text)
    return file.registered_as(ref=text, name=version.name, version=str(version.version))
