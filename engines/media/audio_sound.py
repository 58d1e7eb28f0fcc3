"""Arithmetic of sound: mixing to one or two channels, and libswresample with pinned options, in integers.

The resampler computes with 32-bit integers, for which FFmpeg has no vector code: any CPU gives the same samples. So do
the sums of channels, which NumPy computes one after the other in float64.
"""

from collections.abc import Sequence
from math import gcd, sqrt

import av
import numpy as np
from av.audio.frame import AudioFrame

from engines.part import Array
from schemas.model import TensorSpec

LAYOUTS = {1: "mono", 2: "stereo"}
_FULL = float(1 << 31)
_MOST_PHASE_BITS = 16
_HALF = sqrt(0.5)
_OWN = {"FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (_HALF, _HALF), "LFE": (0.0, 0.0), "LFE2": (0.0, 0.0)}
_ENDS = {"L": (_HALF, 0.0), "R": (0.0, _HALF)}  # of names of further channels
_FURTHER = (0.5, 0.5)


def mixed(frames: Sequence[AudioFrame], channels: int) -> tuple[Array, int]:
    """Return the samples of frames of one format end to end, `[channels, n]` int32, and how many were no numbers.

    One or two channels are made of more by the weights of ITU-R BS.775 without the low-frequency one, so that the sum
    never exceeds full scale. Samples beyond -1 ... 1 are clipped; those that are no numbers become 0.
    """
    first = frames[0]
    given = first.layout.nb_channels
    raw = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if not first.format.is_planar:
        raw = raw.reshape(-1, given).T
    values, bad = _as_floats(raw)
    weights = _weights([channel.name for channel in first.layout.channels], given, channels)
    made = np.zeros((channels, values.shape[1]))
    for out, row in enumerate(weights):
        for weight, samples in zip(row, values, strict=True):
            if weight:
                made[out] += samples * weight
    made *= _FULL
    np.rint(made, made)
    np.clip(made, -_FULL, _FULL - 1, made)
    return made.astype(np.int32), bad


def resampled(samples: Array, rate: int, to: int) -> Array:
    """Return `[channels, m]` int32 of samples `[channels, n]` at `rate` Hz at `to` Hz; sample 0 stays at time 0.

    The result is a little shorter than the sound: a filter's half is missing at the end.
    """
    if rate == to:
        return samples
    phases = to // gcd(rate, to)
    options = {
        "internal_sample_fmt": "s32p",
        "resampler": "swr",
        "filter_type": "kaiser",
        "kaiser_beta": "9",
        "filter_size": "32",
        "cutoff": "0.97",
        "phase_shift": str(min(_MOST_PHASE_BITS, (phases - 1).bit_length())),
        "exact_rational": "1",
        "linear_interp": "0",
        "dither_method": "none",
    }
    layout = LAYOUTS[len(samples)]
    resampler = av.AudioResampler("s32p", layout, to, options=options)
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s32p", layout)
    frame.sample_rate = rate
    return np.concatenate(
        [np.zeros((len(samples), 0), np.int32), *(part.to_ndarray() for part in resampler.resample(frame))], axis=1
    )


def as_floats(samples: Array) -> Array:
    """Return int32 samples as float32 of -1 ... 1."""
    return samples.astype(np.float32) * np.float32(1 / _FULL)


def model_windows(samples: Array, before: int, count: int, tensor: TensorSpec) -> Array:
    """Return `count` windows of samples `[before + n]` int32 as the input of a model whose card says what they are.

    Window k has `tensor.sound.samples` samples from `before + k * samples` on, and those of its context in front;
    silence stands behind a last one that the sound does not fill.
    """
    assert tensor.sound is not None
    spec = tensor.sound
    padded = np.zeros(spec.context + count * spec.samples, np.int32)
    given = samples[before - spec.context :]
    padded[: len(given)] = given[: len(padded)]
    starts = np.arange(count)[:, None] * spec.samples
    return shaped(as_floats(padded)[starts + np.arange(spec.width)], tensor)


def shaped(windows: Array, tensor: TensorSpec) -> Array:
    """Return windows `[W, width]` float32 in the type and with the dimensions of a model's input."""
    values = windows * 32767 if tensor.dtype == "int16" else windows
    inner = (1,) * (len(tensor.shape) - 2)
    return values.astype(tensor.dtype).reshape(len(windows), *inner, windows.shape[1])


def _as_floats(raw: Array) -> tuple[Array, int]:
    """Return samples as float64 of -1 ... 1, and how many were no numbers."""
    if raw.dtype.kind == "f":
        values = raw.astype(np.float64)
        bad = int(values.size - np.isfinite(values).sum())
        return (np.where(np.isnan(values), 0.0, np.clip(values, -1, 1)) if bad else values), bad
    if raw.dtype == np.uint8:
        return (raw.astype(np.float64) - 128) / 128, 0
    return raw.astype(np.float64) / float(1 << (8 * raw.dtype.itemsize - 1)), 0


def _weights(names: Sequence[str], given: int, channels: int) -> list[list[float]]:
    """Return the weights of the given channels for each that is made."""
    if given == 1:
        return [[1.0]] * channels
    known = len(set(names)) == given and "FL" in names and "FR" in names
    pairs = [_OWN.get(name) or _ENDS.get(name[-1:], _FURTHER) if known else _FURTHER for name in names]
    if channels == 1:
        rows = [[(left + right) / 2 for left, right in pairs]]
    elif not known and given == 2:
        rows = [[1.0, 0.0], [0.0, 1.0]]
    else:
        rows = [[pair[side] for pair in pairs] for side in (0, 1)]
    most = max(1.0, *(sum(row) for row in rows))
    return [[weight / most for weight in row] for row in rows]
