"""Heads: what a model's outputs mean. One file each, found by name; see `engines.heads.base`."""
