"""Files to pixels: which images a folder holds, and what each shows, whatever its format, depth and damage.

    find_images(folder)                                       which files; list_images: and which folders are closed
    read_image(path, max_pixels=...)                          one file, with what its restored copy must keep
    to_model_input(image, channels=..., dtype=...)            as a model wants it
    decode(files, channels=..., dtype=..., workers=..., ...)  many files, on threads, in order

A file that cannot be decoded is an `ImageError` or a `Failed`, with one line that says why, and nothing else.
"""

from pipelines.images.convert import to_model_input
from pipelines.images.decoding import Decoded, Failed, decode
from pipelines.images.find import (
    IMAGE_SUFFIXES,
    OUTPUT_MARKER,
    Found,
    ImageFile,
    UnreadableFolder,
    expect_images,
    find_images,
    list_images,
)
from pipelines.images.image import Image
from pipelines.images.read import read_image

__all__ = [
    "IMAGE_SUFFIXES",
    "OUTPUT_MARKER",
    "Decoded",
    "Failed",
    "Found",
    "Image",
    "ImageFile",
    "UnreadableFolder",
    "decode",
    "expect_images",
    "find_images",
    "list_images",
    "read_image",
    "to_model_input",
]
