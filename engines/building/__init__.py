"""Engines: ONNX compiled for a kind of GPU, kept with all that it depends on, and tested before it serves."""
