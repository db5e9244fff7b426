"""What a model believes of images: posteriors, sheets of decoded pictures, copies."""

__all__ = ["copies", "posteriors", "sections", "vectors"]
