"""Vectors of voices: pieces of speech -> what a network of speakers says of each, of unit length."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from engines.part import Array
from engines.ports import Session
from engines.speech.bands import bands_of
from engines.speech.mel import RATE, STEP
from engines.vectors import unit
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

VOICES, HEARD = "voices", "heard"  # arrays of a part: vectors, and the seconds of each
SCALE = 32767  # of a vector's numbers as int16: their products are whole, so their sums are exact in any order
_PARTIALS_A_S, _COVERED = 1.3, 0.75  # Resemblyzer's


def spans_of(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Return windows `[first, last)` that cover a run of so many samples; one that is shorter is a window itself."""
    if samples <= window:
        return [(0, samples)]
    starts = list(range(0, samples - window + 1, hop))
    if starts[-1] + window < samples:
        starts.append(samples - window)
    return [(start, start + window) for start in starts]


def voice_input(model: ModelSpec, hint: str = "see docs/transcribe.md") -> tuple[TensorSpec, int]:
    """Return the input of bands of a network of speakers, and the length of its vectors. Raises ModelError."""
    found = next((tensor for tensor in model.inputs if tensor.bands is not None), None)
    sizes = model.outputs[0].shape
    if found is None or len(model.inputs) != 1 or len(sizes) != 2 or not isinstance(sizes[1], int):
        raise ModelError(f"model `{model.name}` is no network of speakers, which takes bands of sound", hint)
    return found, sizes[1]


def voices_of(
    sounds: Sequence[Array], session: Session, most: int, count: Callable[[int], None] = lambda _: None
) -> Array:
    """Return `[N, D]` int16, a vector of each piece of sound; zeros of one that has no voice at all.

    A network of a fixed number of rows has Resemblyzer's way: rows are cut into runs that overlap, and the vector is
    the mean of theirs. `most` runs are computed at a time; `count` gets how many.
    """
    tensor, _ = voice_input(session.spec)
    assert tensor.bands is not None
    _, length, bands = tensor.shape
    rows: list[Array] = []
    owners: list[int] = []
    for number, sound in enumerate(sounds):
        if isinstance(length, int):
            starts = _starts(len(sound), length)
            found = bands_of(sound, tensor.bands, int(bands), (starts[-1] + length) * STEP)
            made = [found[start : start + length] for start in starts]
        else:
            made = [bands_of(sound, tensor.bands, int(bands))]
        rows += made
        owners += [number] * len(made)
    answers = np.concatenate([_run(batch, tensor.name, session, count) for batch in _batches(rows, most)])
    sums = np.zeros((len(sounds), answers.shape[1]))
    np.add.at(sums, owners, unit(np.nan_to_num(answers)).astype(np.float64))
    return np.rint(unit(sums).astype(np.float64) * SCALE).astype(np.int16)


def _batches(rows: Sequence[Array], most: int) -> Iterator[Sequence[Array]]:
    """Yield neighbours of one length, at most so many."""
    first = 0
    for number in range(1, len(rows) + 1):
        if number == len(rows) or number - first == most or len(rows[number]) != len(rows[first]):
            yield rows[first:number]
            first = number


def _run(rows: Sequence[Array], name: str, session: Session, count: Callable[[int], None]) -> Array:
    answer = session.run({name: np.stack(rows)})
    count(len(rows))
    return answer[session.spec.outputs[0].name]


def _starts(samples: int, length: int) -> list[int]:
    """The first rows of runs of `length`, as Resemblyzer's compute_partial_slices has them."""
    frames, step = -(-(samples + 1) // STEP), round(RATE / _PARTIALS_A_S / STEP)
    starts = list(range(0, max(1, frames - length + step + 1), step))
    if len(starts) > 1 and (samples - starts[-1] * STEP) / (length * STEP) < _COVERED:
        starts.pop()
    return starts
