"""One image through a restorer, a colorizer or a segmenter: blocks, channels, pictures, quality."""

__all__ = ["channels", "colorizer", "noise", "pictures", "quality", "restorer", "result_file", "segmenter"]
