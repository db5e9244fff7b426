"""What has no subject of its own: whole files, locks, progress, threads in order, text for people, cores."""

__all__ = [
    "concurrency", "cores", "files", "locks", "parquet", "paths", "percentages", "progress", "safe_text", "subsample",
    "warned",
]  # fmt: skip
