"""The job file (TOML): its tables, checks and schedules."""

__all__ = ["job", "piece_names", "recurrence", "tables"]
