"""Training of anomaly models: in closed form or by gradient, bundle, card, promotion, registration."""

__all__ = [
    "adversary", "bundle", "calibrate", "closed_form", "deep", "fit", "folder_remarks", "folds", "loop", "model_card",
    "need", "network", "options", "promotion", "recalibrate", "registration", "temperature", "weights",
]  # fmt: skip
