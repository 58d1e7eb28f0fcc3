"""The bands of sound that vocoders of Vocos and models of ZipVoice take.

Source: gemelo-ai/vocos, feature_extractors.py, and ZipVoice, zipvoice/utils/feature.py: torchaudio's MelSpectrogram of
magnitudes with its defaults (Hann windows, reflected ends, HTK's mel scale, triangles that are not normalised), the
logarithm of at least 1e-7, and a frame for each `hop` samples, rounded.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engines.part import Array

_LEAST = 1e-7


def vocos_bands(sound: Array, rate: int, size: int, hop: int, bands: int) -> Array:
    """Return `[frames, bands]` float32 of `sound [samples]` at `rate` Hz, which is longer than half a window of `size`.

    It is computed in float64.
    """
    padded = np.pad(sound.astype(np.float64), size // 2, mode="reflect")
    windows = sliding_window_view(padded, size)[::hop]
    magnitudes = np.abs(np.fft.rfft(windows * np.hanning(size + 1)[:-1], axis=1))
    made = np.log(np.maximum(magnitudes @ _triangles(rate, size, bands), _LEAST))
    return np.asarray(made[: max(1, (len(sound) + hop // 2) // hop)], np.float32)


def _triangles(rate: int, size: int, bands: int) -> Array:
    """Return the weight of each frequency in each band, `[size / 2 + 1, bands]`: from 0 to half the rate."""
    top = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    rise, fall = edges[1:-1] - edges[:-2], edges[2:] - edges[1:-1]
    hertz = np.linspace(0.0, rate // 2, size // 2 + 1)[:, None]
    return np.maximum(0.0, np.minimum((hertz - edges[:-2]) / rise, (edges[2:] - hertz) / fall))
