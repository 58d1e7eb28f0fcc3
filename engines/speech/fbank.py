"""The front end of Kaldi and FunASR: logarithms of the energies of 80 bands of sound, stacked at a lower rate.

Source: Kaldi, feat/feature-window.cc, feature-fbank.cc and mel-computations.cc, with what FunASR sets: Hamming windows
of 25 ms every 10 ms that lie inside of the sound, no dither; its WavFrontend for the stacks.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engines.part import Array
from engines.speech.mel import RATE, STEP

BANDS = 80
WIDTH = 400  # samples of a frame; the next one begins `STEP` later
_FFT = 512
_LOWEST_HZ = 20.0
_EMPHASIS = 0.97
_LEAST = float(np.finfo(np.float32).eps)


def fbank(sound: Array, gain: float = 32768.0, povey: bool = False) -> Array:
    """Return `[frames, 80]` float32 of `sound [samples]` float32 at 16 kHz; none of fewer than 400 samples.

    `povey`: Kaldi's own windows instead of Hamming's.
    """
    if len(sound) < WIDTH:
        return np.zeros((0, BANDS), np.float32)
    frames = sliding_window_view(sound.astype(np.float64) * gain, WIDTH)[::STEP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = np.hanning(WIDTH) ** 0.85 if povey else np.hamming(WIDTH)
    spectrum = np.fft.rfft((frames - _EMPHASIS * before) * window, _FFT, axis=1)
    energies = (spectrum.real**2 + spectrum.imag**2) @ _filters()
    return np.log(np.maximum(energies, _LEAST)).astype(np.float32)


def stacked(frames: Array, stack: int, hop: int) -> Array:
    """Return `[ceil(frames / hop), 80 * stack]`: each row is `stack` frames, and begins `hop` after the one before.

    The first frame is there `(stack - 1) // 2` times more, so that rows have their frame in the middle; the last one is
    repeated behind the end.
    """
    rows = -(-len(frames) // hop)
    places = np.arange(rows)[:, None] * hop + np.arange(stack) - (stack - 1) // 2
    places = np.clip(places, 0, max(0, len(frames) - 1))
    return np.ascontiguousarray(frames[places].reshape(rows, stack * frames.shape[1]))


@cache
def _filters() -> Array:
    """`[257, 80]`: triangles of equal width on Kaldi's mel scale, from 20 Hz to 8 kHz."""
    edges = np.linspace(_mel(np.array(_LOWEST_HZ)), _mel(np.array(RATE / 2)), BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(np.arange(_FFT // 2 + 1) * RATE / _FFT)[:, None]
    return np.maximum(0, np.minimum((mel - low) / (middle - low), (high - mel) / (high - middle)))


def _mel(hertz: Array) -> Array:
    return np.asarray(1127.0 * np.log(1.0 + hertz / 700.0))
