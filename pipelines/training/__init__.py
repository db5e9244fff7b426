"""Training of anomaly models: network, loop, choice of the score, bundle, card, promotion, registration."""

__all__ = [
    "adversary", "bundle", "feature_probe", "fit", "loop", "model_card", "need", "network", "options", "promotion",
    "registration", "score_choice", "temperature", "weights",
]  # fmt: skip
