"""Vectors of pictures and texts, which are compared by their cosines: dot products at unit length."""

import numpy as np

from engines.part import Array

_LEAST = 1e-12  # as PyTorch's `normalize`: zeros stay zeros


def unit(vectors: Array) -> Array:
    """Return rows `[N, D]` of numbers as float32, divided by their lengths in float64: `v / max(|v|, 1e-12)`."""
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    return np.asarray(wide / np.maximum(lengths, _LEAST), np.float32)
