"""Whisper's input: the logarithms of the energies of bands of sound.

Source: openai/whisper, whisper/audio.py, and SYSTRAN/faster-whisper, feature_extractor.py, whose values these are:
Hann windows of 400 samples every 160, bands of Slaney's mel scale of equal area.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engines.part import Array

RATE = 16_000
STEP = 160  # samples, 10 ms
MOST_FRAMES = 3000
MOST_SAMPLES = MOST_FRAMES * STEP
_WIDTH = 400
_RANGE = 8.0  # decades below the loudest that are kept
_LINEAR_HZ, _BREAK_HZ = 200 / 3, 1000.0  # the scale is linear up to the break, and logarithmic above
_LOG_STEP = np.log(6.4) / 27
_TOP_MEL = 45.245640471924965  # of 8 kHz


def log_mel(sound: Array, bands: int) -> Array:
    """Return `[bands, frames]` float32 of `sound [samples]` float32 at 16 kHz: a frame for each 160 samples begun."""
    padded = np.pad(np.pad(sound.astype(np.float32), (0, STEP)), _WIDTH // 2, mode="reflect")
    windows = sliding_window_view(padded, _WIDTH)[::STEP][:-1]
    spectrum = np.fft.rfft(windows * _hann(), axis=-1).astype(np.complex64)
    energies = filters(bands) @ (np.abs(spectrum.T) ** 2)
    logs = np.log10(np.maximum(energies, 1e-10))
    logs = np.maximum(logs, logs.max() - _RANGE)
    return np.asarray((logs + 4.0) / 4.0, np.float32)


def features(sound: Array, bands: int) -> Array:
    """Return `[bands, 3000]` float32 of at most 30 s of sound, with zeros behind it."""
    made = np.zeros((bands, MOST_FRAMES), np.float32)
    found = log_mel(sound, bands)[:, :-1][:, :MOST_FRAMES]
    made[:, : found.shape[1]] = found
    return made


@cache
def filters(bands: int) -> Array:
    """Return the weights of each frequency in each band, `[bands, 201]` float32."""
    edges = _hertz(np.linspace(0.0, _TOP_MEL, bands + 2))
    ramps = edges[:, None] - np.fft.rfftfreq(_WIDTH, 1 / RATE)[None]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None], np.float32)


def _hertz(mels: Array) -> Array:
    first = _BREAK_HZ / _LINEAR_HZ
    return np.where(mels < first, mels * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * (mels - first)))


@cache
def _hann() -> Array:
    return np.hanning(_WIDTH + 1)[:-1].astype(np.float32)
