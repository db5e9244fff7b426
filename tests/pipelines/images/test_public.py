"""The public face of the package, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pipelines.images

FOLDER = Path(pipelines.images.__file__).parent


def test_the_public_names_are_these():
    """Beside them the face names whole modules: tests/pipelines/test_rooms.py."""
    names = {name for name in pipelines.images.__all__ if not (FOLDER / f"{name}.py").exists()}
    assert names == {
        "IMAGE_SUFFIXES",
        "OUTPUT_MARKER",
        "Decoded",
        "Failed",
        "FileList",
        "Found",
        "Image",
        "ImageFile",
        "LeftOut",
        "Opened",
        "UnreadableFolder",
        "decode",
        "expect_images",
        "find_images",
        "list_images",
        "open_images",
        "read_image",
        "stem_of",
        "to_model_input",
    }
    assert all(hasattr(pipelines.images, name) for name in names)


def test_importing_it_loads_no_decoder_and_nothing_of_training():
    heavy = {"PIL", "imagecodecs", "tifffile", "torch", "vaecore", "mlflow", "prefect"}
    program = f"import sys, pipelines.images; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
