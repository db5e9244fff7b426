"""Damage: `degradations` make the images that a restorer learns from, `corruptions` spoil what a network is shown."""

__all__ = ["corruptions", "degradations"]
