"""The public face of the package, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pipelines.images


def test_the_public_names_are_these():
    assert set(pipelines.images.__all__) == {
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
        "to_model_input",
    }
    assert all(hasattr(pipelines.images, name) for name in pipelines.images.__all__)


def test_importing_it_loads_no_decoder_and_nothing_of_training():
    heavy = {"PIL", "imagecodecs", "tifffile", "torch", "vaecore", "mlflow", "prefect"}
    program = f"import sys, pipelines.images; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
