"""Heads make boxes, classes and so on of a model's outputs. One file each, found by name; see `engines.heads.base`."""
