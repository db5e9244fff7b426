"""Damage: `degradations` and `camera` make the images that a restorer learns from, `corruptions` spoil its input."""

__all__ = ["camera", "corruptions", "degradations"]
