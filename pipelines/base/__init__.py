"""What has no subject of its own: whole files, locks, progress, threads in order, text for people, cores, version."""

__all__ = [
    "concurrency", "cores", "files", "locks", "parquet", "paths", "percentages", "progress", "safe_text", "software",
    "subsample", "warned",
]  # fmt: skip
