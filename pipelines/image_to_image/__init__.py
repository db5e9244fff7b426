"""Training of image-to-image models on crops: one file a kind over a shared skeleton."""

__all__ = ["colorizer", "kind", "restorer", "segmenter", "train", "unpaired"]
