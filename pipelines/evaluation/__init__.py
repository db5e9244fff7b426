"""Figures of merit, one file a kind of model."""

__all__ = [
    "anomalies", "bound", "classes", "classical", "colorizer", "defect_masks", "descriptions", "probe", "restorer",
    "segmenter",
]  # fmt: skip
