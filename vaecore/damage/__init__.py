"""Damage: `degradations` and `camera` make the images that a restorer learns from, `corruptions` spoil what a network sees."""

__all__ = ["camera", "corruptions", "degradations"]
