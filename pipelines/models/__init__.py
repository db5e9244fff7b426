"""The model file: one ONNX file with its metadata, its session, its gallery, and how images are decoded for it."""

__all__ = ["gallery", "inner_outputs", "inputs", "model_file", "providers", "reference", "session", "windows"]
