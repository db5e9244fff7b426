"""The model registry: MLflow registered models with the aliases champion, challenger and previous; never stages."""

__all__ = ["batch_runs", "history", "records", "resolve", "search", "store", "tracking"]
