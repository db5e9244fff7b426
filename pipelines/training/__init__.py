"""Training of anomaly models: network, loop, choice of the score, bundle, card, promotion, registration."""

__all__ = [
    "adversary",
    "bundle",
    "crops",
    "error_bars",
    "feature_probe",
    "fit",
    "model_card",
    "need",
    "network",
    "promotion",
    "registration",
    "score_choice",
    "weights",
]
