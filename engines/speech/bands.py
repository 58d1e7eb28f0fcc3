"""The energies of bands of sound that networks of speakers take, a row each 10 ms, of windows of 25 ms.

`mel` is librosa's `melspectrogram` with 400 samples every 160: Slaney's scale, energies as they are, zeros around the
sound (librosa 0.11, feature/spectral.py). `fbank` is Kaldi's, see `engines.speech.fbank`.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engines.part import Array
from engines.speech.fbank import WIDTH, fbank
from engines.speech.mel import STEP, filters
from schemas.model import BandsSpec

_LEAST_POWER = 1e-10  # -100 dB: digital silence stays silence


def bands_of(sound: Array, spec: BandsSpec, bands: int, least: int = 0) -> Array:
    """Return `[T, bands]` float32 of `sound [samples]` at 16 kHz; at least one row.

    Zeros stand behind fewer than `least` samples; the level is that of the sound without them.
    """
    wide = sound.astype(np.float64)
    if spec.level_db is not None:
        wide = _louder(wide, spec.level_db)
    wide = np.pad(wide, (0, max(0, least - len(wide))))
    if spec.kind == "mel":
        made = _mel(wide, bands)
    else:
        made = fbank(np.pad(wide, (0, max(0, WIDTH - len(wide)))), spec.gain, spec.window == "povey")
    if spec.centre:
        made = made - made.mean(axis=0)
    return np.asarray(made, np.float32)


def _louder(sound: Array, level_db: float) -> Array:
    """Raise sound to that level, in decibels of full scale, if it is below."""
    power = float(np.mean(sound**2)) if len(sound) else 0.0
    if power < _LEAST_POWER:
        return sound
    return np.asarray(sound * max(1.0, 10 ** (level_db / 20) / np.sqrt(power)))


def _mel(sound: Array, bands: int) -> Array:
    windows = sliding_window_view(np.pad(sound, WIDTH // 2), WIDTH)[::STEP]
    return np.abs(np.fft.rfft(windows * np.hanning(WIDTH + 1)[:-1])) ** 2 @ filters(bands).T
