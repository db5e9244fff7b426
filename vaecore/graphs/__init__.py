"""What is exported: one torch module for each kind of model, from a file's numbers to what is written.

scoring, restoration, segmentation, colorization    the graphs, with the losses and measures of their training
export                                              a graph to an ONNX file with metadata
"""

__all__ = ["colorization", "export", "quiet", "restoration", "scoring", "segmentation"]
