"""A model file with one more output: a value inside its graph.

ONNX files are protocol buffers, and two serialised messages one after the other are read as one, merged message. So a
few bytes at the end of a file declare the output, and neither the file nor the package `onnx` is needed for it.
"""

from __future__ import annotations

FEATURES = "extracted"
"""The features (N, D, h, w) that a scoring graph compares, as `vaecore.graphs.export` names them. Models of pixels have
no value of this name."""
_NAME, _OUTPUT, _GRAPH = 1, 12, 7  # fields of ValueInfoProto, GraphProto and ModelProto


def add_output(content: bytes, name: str) -> bytes:
    """Return a model file that also gives a value inside its graph.

    Args:
        content: The file.
        name: Of the value. ONNX Runtime refuses the result where the graph has none of this name.
    """
    field = name.encode()
    for number in (_NAME, _OUTPUT, _GRAPH):
        field = bytes([number << 3 | 2, len(field)]) + field  # 2: bytes of a length; below 128 both take one byte each
    return content + field
