"""Training images: what is chosen from them, splits, arrays and crops, caches, synthetic defects."""

__all__ = [
    "cache", "classes", "crop_images", "examples", "extractor", "file_digests", "image_changes", "known_images",
    "pieces", "plan", "splits", "synthetic_defects", "training_images",
]  # fmt: skip
