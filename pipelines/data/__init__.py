"""Training images: what is chosen from them, splits, arrays and crops, caches, synthetic defects."""

__all__ = [
    "cache",
    "classes",
    "crop_images",
    "damaged",
    "examples",
    "file_digests",
    "pieces",
    "plan",
    "splits",
    "test_images",
    "training_images",
]
