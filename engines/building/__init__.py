"""Builds engines: ONNX compiled for a kind of GPU, stored with all its dependencies, and tested before its use."""
