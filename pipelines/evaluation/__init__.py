"""Figures of merit, one file a kind of model."""

__all__ = ["bound", "classes", "classical", "colorizer", "defect_masks", "probe", "regret", "restorer", "segmenter"]
