"""Local copies of bundles: `KINTSUGI_HOME/models/<sha256 of model.onnx>`, read again in full at every use."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.base.locks import locked
from pipelines.models.model_file import MODEL_FILE
from pipelines.registry.bundle import first_mismatch

MANIFEST = ".digests.json"  # what a copy was made from


def local_copy(root: Path, digests: Mapping[str, str], download: Callable[[Path], None]) -> Path:
    """The folder with exactly these files, downloaded when it is not there or is damaged.

    Args:
        root: Folder of all copies.
        digests: The sha256 of every file by relative path, model.onnx among them.
        download: Writes the files into the empty folder that it is given, and raises when they are not as registered.

    Returns:
        The folder; every file in it has its digest.
    """
    root.mkdir(parents=True, exist_ok=True)
    # Workers of one machine start together: one of them downloads. Versions that share a model share the lock: which
    # folder is whose is decided under it.
    with locked(root / f".{digests[MODEL_FILE]}.lock"):
        folder = _folder(root, digests)
        if folder.is_dir() and first_mismatch(folder, digests) is None:
            return folder
        draft = root / f".{folder.name}.new"
        shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed here
        draft.mkdir()
        try:
            download(draft)
            (draft / MANIFEST).write_text(json.dumps(dict(digests), sort_keys=True), encoding="utf-8")
            if folder.exists():
                damaged = root / f".{folder.name}.damaged"
                shutil.rmtree(damaged, ignore_errors=True)
                folder.replace(damaged)
                shutil.rmtree(damaged, ignore_errors=True)
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _folder(root: Path, digests: Mapping[str, str]) -> Path:
    """Where the copy is, or goes: versions that share a model and differ beside it get longer names, but the first.

    A folder that may be another version's is never taken, even if it is damaged: its files may be in use.
    """
    folder = root / digests[MODEL_FILE]
    try:
        made_from = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        made_from = digests if not folder.exists() or first_mismatch(folder, digests) is None else None
    except (OSError, ValueError):
        made_from = None
    if made_from == digests:
        return folder
    whole = hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()
    return root / f"{folder.name}-{whole[:12]}"
