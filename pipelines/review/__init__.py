"""Review: a person answers what images show, and what follows from it."""

__all__ = ["answers", "desk", "guard", "run", "server", "summary", "uses"]
