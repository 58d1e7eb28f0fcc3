"""Builders of the models that need no weights: their ONNX graphs, from formulas."""
