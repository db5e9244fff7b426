"""From scores and anomaly maps to verdicts: calibration, thresholds, drift, heat maps, regions, figures of merit.

Knows no files and no networks: numbers in, numbers and pictures out.
"""

__all__ = [
    "abnormal_regions", "against", "calibration", "contributions", "drift", "equating", "figures_of_merit", "findings",
    "group_thresholds", "heatmap", "image_facts", "odd_scores", "place_quantiles", "rate_claim", "strangers",
    "verdicts",
]  # fmt: skip
