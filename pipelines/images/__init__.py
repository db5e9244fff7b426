"""Files to pixels: which images a folder holds, and what each shows, whatever its format, depth and damage.

    find_images(folder)                                       which files; list_images: and what is left out
    read_image(path, max_pixels=...)                          one file, with what its restored copy must keep
    to_model_input(image, channels=..., dtype=...)            as a model wants it
    decode(files, channels=..., dtype=..., workers=..., ...)  many files, on threads, in order
    open_images(files, workers=..., max_pixels=...)           the same, each as its file has it

A file that cannot be decoded is an `ImageError` or a `Failed`, with one line that says why, and nothing else.
"""

from pipelines.images.convert import to_model_input
from pipelines.images.find import (
    IMAGE_SUFFIXES,
    OUTPUT_MARKER,
    Found,
    UnreadableFolder,
    expect_images,
    find_images,
    list_images,
    stem_of,
)
from pipelines.images.image import Image
from pipelines.images.left_out import LeftOut
from pipelines.images.listing import FileList, ImageFile
from pipelines.images.parallel_decoding import Decoded, Failed, Opened, decode, open_images
from pipelines.images.read import read_image

__all__ = [
    "IMAGE_SUFFIXES", "OUTPUT_MARKER", "Decoded", "Failed", "FileList", "Found", "Image", "ImageFile", "LeftOut",
    "Opened", "UnreadableFolder", "bits", "camera_bits", "colour_space", "convert", "decode", "drawing",
    "expect_images", "find_images", "hidden", "image", "label_images", "left_out", "list_images", "open_images",
    "parallel_decoding", "read", "read_image", "resaved", "samples", "stem_of", "tags", "tiles", "to_model_input",
    "windows", "write",
]  # fmt: skip
