"""How alike two media are, and how they are shifted in time: what `rigflow near` and `rigflow cluster` go by."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.models.fingerprint import blank_windows
from engines.part import Array
from schemas.errors import UsageError

ALIKE = 0.8  # similarity of different films is below
_HINT = "make it by `rigflow run fingerprint` or `rigflow run clip-features`"
_VECTORS = ("descriptor", "features")  # what the models of those two pipelines call them
_FEW = 1 << 18  # pairs of windows that are faster compared one by one than by a transform


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a model says of one media: `vectors [N, D]` of unit length, and their `times [N]` in seconds.

    `blank [N]` bool: windows without anything to see, one like the other; None where the model does not say.
    """

    vectors: Array
    times: Array
    name: str = ""
    blank: Array | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The best alignment: what B shows at `t` seconds, A shows at `t + offset_s`.

    `similarity` is the mean cosine over the `windows` that the two have in common then and of which one at least is not
    blank, 1.0 for equal pictures; 0.0 where there are none, for blank windows say nothing.
    """

    similarity: float
    offset_s: float
    windows: int


def load_descriptors(path: Path) -> Descriptors:
    """The descriptors of one media's result file. Raises UsageError when it is none, or has many images."""
    found = load_media(path)
    if len(found) > 1:
        raise UsageError(f"{path} describes {len(found)} images", "compare media one with one")
    return next(iter(found.values()))


def load_media(path: Path) -> dict[str, Descriptors]:
    """What a result of `fingerprint` or `clip-features` describes: a video, under the name "", or images by theirs.

    Vectors are brought to unit length. Raises UsageError when the file has no descriptors.
    """
    try:
        # opened here, for np.load leaves open what it cannot read
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_VECTORS, "times", "names") if name in file}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    # np.load gives an array for .npy, and ValueError, EOFError or BadZipFile for what is not its own
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an npz file of descriptors", _HINT) from error
    vectors, names = next((arrays[name] for name in _VECTORS if name in arrays), None), arrays.get("names")
    times = arrays.get("times", names)
    if vectors is None or times is None or vectors.ndim != 2 or len(times) != len(vectors):
        raise UsageError(f"{path} has no descriptors", _HINT)
    if len(vectors) == 0:
        raise UsageError(f"{path} has no windows", "its media was too damaged to be described")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise UsageError(f"{path} has descriptors that are not finite", "see whether its model fits its pipeline")
    vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
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
    """The shift with the highest mean cosine; of equals the least shift.

    Only shifts count that have at least `least_overlap` of the most windows that any shift has in common. Windows that
    are missing from a file (lost to damage) are left out of the mean, and so are pairs of blank windows: any two of
    them are equal. Raises UsageError when the two are not on one
    time grid.
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
    best = np.flatnonzero(means >= means.max() - 1e-6)  # what the transform rounds
    pick = best[np.abs(shifts[best]).argmin()]
    offset = shifts[pick] * steps[0] + a.times[0] - b.times[0]
    return Match(float(np.clip(means[pick], -1, 1)), float(offset), int(windows[pick]))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Vectors `[G, D]` by their place on a time grid, zero where one is missing; `[G, 1]`, 1 where there is one, and
    where it is blank.
    """

    vectors: Array
    there: Array
    blank: Array

    @property
    def blank_vectors(self) -> Array:
        """Those of blank windows, zero elsewhere."""
        return self.vectors * self.blank


def _steps(a: Descriptors, b: Descriptors) -> tuple[float, float]:
    """Seconds between the windows of each; a single window takes the other's grid."""
    own = [_step(each.times) for each in (a, b)]
    known = [step for step in own if step] or [1.0]
    if min(known) < 0 or max(known) > 1.02 * min(known):  # pts round to the media's clock, milliseconds at worst
        both = " and ".join(f"{step:g} s" for step in known)
        raise UsageError(f"{a.name} and {b.name} are not on one time grid: a window each {both}", _HINT)
    return own[0] or known[0], own[1] or known[0]


def _step(times: Array) -> float:
    """Mean distance of neighbours, without the gaps of windows that are missing; 0.0 for a single window."""
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
    """`sum_i a[i + k] . b[i]` for all shifts `k = 1 - len(b) ... len(a) - 1`; by FFT hours take milliseconds."""
    if len(a) * len(b) <= _FEW:
        shifts = np.subtract.outer(np.arange(len(a)), np.arange(len(b))) + len(b) - 1
        return np.bincount(shifts.ravel(), (a @ b.T).ravel())
    size = len(a) + len(b) - 1
    spectrum = np.fft.rfft(a, size, axis=0) * np.fft.rfft(b, size, axis=0).conj()
    return np.roll(np.fft.irfft(spectrum.sum(axis=1), size), len(b) - 1)
