"""Reads models from outside, and builds the models that need no weights from formulas."""
