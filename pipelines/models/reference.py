"""Model references: what a user types after `--model` becomes a verified file."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.base.paths import from_home
from pipelines.errors import ModelError
from pipelines.models.model_file import MODEL_FILE, ModelFile, sha256_of

BUILTIN = Path(__file__).parents[1] / "builtin"
FORMS = "name@champion, name@alias, name/3, models:/name/3, builtin:NAME, or the path of an .onnx file"


def find_model_file(ref: str | Path) -> ModelFile | None:
    """Resolve a reference that needs no registry: a path to an `.onnx` file or to its folder, or `builtin:NAME`.

    Returns:
        The file, its digest computed; None when the reference is the registry's to resolve.

    Raises:
        ModelError: It names a file that is not there.
    """
    text = str(ref)
    if text.startswith("builtin:"):
        return _builtin(text)
    path = from_home(Path(text))
    if path.suffix == ".onnx":
        if not path.is_file():
            msg = f"the model file {path} does not exist; give a model as {FORMS}"
            raise ModelError(msg)
        return ModelFile(path=path, sha256=sha256_of(path), ref=text)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        return ModelFile(path=path / MODEL_FILE, sha256=sha256_of(path / MODEL_FILE), ref=text)
    return None


def split_ref(ref: str) -> tuple[str, str]:
    """Split a registry reference into name and selector (a version number or an alias; champion when left out).

    >>> split_ref("tiles@champion"), split_ref("models:/tiles/3"), split_ref("tiles")
    (('tiles', 'champion'), ('tiles', '3'), ('tiles', 'champion'))

    Raises:
        ModelError: It has none of the forms.
    """
    match = re.fullmatch(r"(?:models:/)?(?P<name>[^/@:]+)(?:(?P<kind>[@/])(?P<selector>[^/@:]+))?", ref)
    if match is None or (match["kind"] == "/" and not match["selector"].isdigit()):
        msg = f"'{ref}' is not a model reference: use {FORMS}"
        raise ModelError(msg)
    return match["name"], match["selector"] or "champion"


def _builtin(ref: str) -> ModelFile:
    name = ref.removeprefix("builtin:")
    there = sorted(path.parent.name for path in BUILTIN.glob(f"*/{MODEL_FILE}"))
    if name not in there:
        shipped = (
            f"there are: {', '.join(there)}" if there else "this release ships none; train one with `kintsugi train`"
        )
        msg = f"there is no built-in model '{name}'; {shipped}"
        raise ModelError(msg)
    path = BUILTIN / name / MODEL_FILE
    return ModelFile(path=path, sha256=sha256_of(path), ref=ref)
