"""Compares two media by their descriptors: similarity and shift in time. Used by `rigflow near` and `cluster`."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.models.fingerprint import blank_windows
from engines.part import Array
from engines.vectors import unit
from schemas.errors import UsageError

ALIKE = 0.8  # different films have a lower similarity
_HINT = "make it by `rigflow run` with fingerprint, embed or clip-features"
_VECTORS = ("descriptor", "features", "embedding")  # names of the outputs of the models of those pipelines
_FEW = 1 << 18  # up to so many pairs of windows, a direct sum is faster than an FFT


class NoWindows(UsageError):
    """A result that holds nothing, as earlier versions wrote it of media that failed."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The descriptors of one media: `vectors [N, D]` of unit length, and their `times [N]` in seconds.

    `blank [N]` bool: windows that show one plain colour, which are all equal; None if the model does not detect them.
    """

    vectors: Array
    times: Array
    name: str = ""
    blank: Array | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The best alignment: the picture of B at `t` seconds is that of A at `t + offset_s`.

    `similarity` is the mean cosine over the `windows` that both have at this shift, without pairs of blank windows: 1.0
    for equal pictures, 0.0 if no window is left.
    """

    similarity: float
    offset_s: float
    windows: int


def load_descriptors(path: Path) -> Descriptors:
    """Read the descriptors of one media. Raises UsageError if the file has none, or has those of several images."""
    found = load_media(path)
    if len(found) > 1:
        raise UsageError(f"{path} describes {len(found)} images", "compare media one with one")
    return next(iter(found.values()))


def load_media(path: Path) -> dict[str, Descriptors]:
    """Read a result of `fingerprint`, `clip-features` or `embed`: image name -> descriptors; a video has the name "".

    Vectors are scaled to unit length. Raises UsageError if the file has no descriptors, NoWindows if it is empty.
    """
    try:
        # opened here, because np.load does not close a file that it cannot read
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_VECTORS, "times", "names") if name in file}
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder", f"name its results, for example {path}/*.fingerprint.npz") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    # np.load returns an array for .npy, and raises ValueError, EOFError or BadZipFile for other files
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an npz file of descriptors", _HINT) from error
    vectors, names = next((arrays[name] for name in _VECTORS if name in arrays), None), arrays.get("names")
    times = arrays.get("times", names)
    if vectors is None or times is None or vectors.ndim != 2 or len(times) != len(vectors):
        raise UsageError(f"{path} has no descriptors", _HINT)
    if len(vectors) == 0:
        raise NoWindows(f"{path} has no windows", "its media was too damaged")
    if not np.isfinite(vectors).all():
        raise UsageError(f"{path} has descriptors that are not finite", "see whether its model fits its pipeline")
    vectors = unit(vectors)
    blank = blank_windows(vectors) if _VECTORS[0] in arrays else None
    if names is None:
        return {"": Descriptors(vectors, times, str(path), blank)}
    found = {}
    for row, name in enumerate(names):
        one = slice(row, row + 1)
        label = str(path if len(names) == 1 else f"{path}:{name}")
        found[str(name)] = Descriptors(vectors[one], np.zeros(1), label, None if blank is None else blank[one])
    return found


def compare(a: Descriptors, b: Descriptors, least_overlap: float = 0.5) -> Match:
    """Find the shift with the highest mean cosine; of equal ones the smallest.

    Shifts with fewer common windows than `least_overlap` of the largest number are not considered. The mean leaves out
    windows that are missing from a file because of damage, and pairs of blank windows, which are always equal. Raises
    UsageError if the two have different time grids.
    """
    if a.vectors.shape[1] != b.vectors.shape[1]:
        lengths = f"{a.vectors.shape[1]} and {b.vectors.shape[1]}"
        raise UsageError(f"{a.name} and {b.name} have descriptors of different lengths, {lengths}", _HINT)
    steps = _steps(a, b)
    left, right = _on_grid(a, steps[0]), _on_grid(b, steps[1])
    shifts = np.arange(1 - len(right.vectors), len(left.vectors))
    both_blank = np.rint(_correlate(left.blank, right.blank))
    windows = np.rint(_correlate(left.there, right.there)) - both_blank
    enough = windows >= max(1.0, least_overlap * windows.max())
    if not enough.any():
        return Match(0.0, float(a.times[0] - b.times[0]), 0)
    sums = _correlate(left.vectors, right.vectors) - _correlate(left.blank_vectors, right.blank_vectors)
    means = np.where(enough, sums / np.maximum(windows, 1), -np.inf)
    best = np.flatnonzero(means >= means.max() - 1e-6)  # 1e-6: the rounding of the FFT
    pick = best[np.abs(shifts[best]).argmin()]
    offset = shifts[pick] * steps[0] + a.times[0] - b.times[0]
    return Match(float(np.clip(means[pick], -1, 1)), float(offset), int(windows[pick]))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Vectors on a time grid: `vectors [G, D]`, zero where one is missing; `there [G, 1]` is 1 where there is one,
    `blank [G, 1]` is 1 where that is blank.
    """

    vectors: Array
    there: Array
    blank: Array

    @property
    def blank_vectors(self) -> Array:
        """The vectors of blank windows; zero elsewhere."""
        return self.vectors * self.blank


def _steps(a: Descriptors, b: Descriptors) -> tuple[float, float]:
    """Return the seconds between windows of both; a media of one window takes the step of the other."""
    own = [_step(each.times) for each in (a, b)]
    known = [step for step in own if step] or [1.0]
    if min(known) < 0 or max(known) > 1.02 * min(known):  # pts are rounded to the clock, at worst to ms
        both = " and ".join(f"{step:g} s" for step in known)
        raise UsageError(f"{a.name} and {b.name} are not on one time grid: a window each {both}", _HINT)
    return own[0] or known[0], own[1] or known[0]


def _step(times: Array) -> float:
    """Return the mean distance of neighbours, without gaps; 0.0 for one window, -1.0 for no order."""
    if len(times) < 2:
        return 0.0
    distances = np.diff(times)
    return float(distances[distances < 1.5 * np.median(distances)].mean()) if np.median(distances) > 0 else -1.0


def _on_grid(descriptors: Descriptors, step: float) -> _Grid:
    places = (descriptors.times - descriptors.times[0]) / step
    index = np.rint(places).astype(int)
    if np.abs(places - index).max() > 0.25 or (np.diff(index) < 1).any():
        raise UsageError(f"{descriptors.name} is not on a time grid", _HINT)
    vectors = np.zeros((index[-1] + 1, descriptors.vectors.shape[1]))
    there, blank = np.zeros((len(vectors), 1)), np.zeros((len(vectors), 1))
    vectors[index], there[index] = descriptors.vectors, 1.0
    if descriptors.blank is not None:
        blank[index, 0] = descriptors.blank
    return _Grid(vectors, there, blank)


def _correlate(a: Array, b: Array) -> Array:
    """`sum_i a[i + k] . b[i]` for all shifts `k = 1 - len(b) ... len(a) - 1`; for many pairs by an FFT."""
    if len(a) * len(b) <= _FEW:
        shifts = np.subtract.outer(np.arange(len(a)), np.arange(len(b))) + len(b) - 1
        return np.bincount(shifts.ravel(), (a @ b.T).ravel())
    size = len(a) + len(b) - 1
    spectrum = np.fft.rfft(a, size, axis=0) * np.fft.rfft(b, size, axis=0).conj()
    return np.roll(np.fft.irfft(spectrum.sum(axis=1), size), len(b) - 1)
