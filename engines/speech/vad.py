"""Where there is speech in sound: from the probabilities of a network to runs of speech, and to chunks of them.

Source of rules and defaults: snakers4/silero-vad, utils_vad.py, in the form of SYSTRAN/faster-whisper 1.2, vad.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engines.part import Array

RATE = 16_000
WINDOW, CONTEXT = 512, 64  # samples of a window, and those before it that the network sees too
_SPLIT_SILENCE = RATE * 98 // 1000  # a run that is too long is cut in a silence of more samples than these


class Run(NamedTuple):
    """Samples `[start, end)` of speech."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many samples it has."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """`threshold`: speech begins at this probability; below `quiet` it ends, where silence lasts `min_silence` samples.

    A run has more than `min_speech` samples; it is at most `longest` with `pad` samples on both sides.
    """

    threshold: float
    quiet: float
    min_speech: float
    min_silence: float
    pad: float
    longest: float


def windows_of(sound: Array) -> Array:
    """Return `[N, 576]` float32: windows of 512 samples behind the 64 before them; silence fills the last one.

    As faster-whisper does, the last 64 samples of the last window are silent.
    """
    count = len(sound) // WINDOW + 1
    padded = np.zeros(CONTEXT + count * WINDOW, np.float32)
    padded[CONTEXT : CONTEXT + len(sound)] = sound
    padded[-CONTEXT:] = 0
    return np.asarray(padded[np.arange(count)[:, None] * WINDOW + np.arange(CONTEXT + WINDOW)])


def runs_of(probabilities: Sequence[float], samples: int, rules: SpeechRules) -> list[Run]:
    """Return the runs of speech in a sound of so many samples, padded, in order."""
    return _padded(list(_found(probabilities, samples, rules)), samples, rules.pad)


def _found(probabilities: Sequence[float], samples: int, rules: SpeechRules) -> Iterator[Run]:
    longest = rules.longest - WINDOW - 2 * rules.pad
    start: int | None = None
    silent = 0  # where the silence began that may end the run
    last_silence = next_speech = 0  # the last silence to cut a long run in, and the speech behind it
    for number, probability in enumerate(probabilities):
        at = number * WINDOW
        if probability >= rules.threshold:
            if silent:
                silent = 0
                if next_speech < last_silence:
                    next_speech = at
            if start is None:
                start = at
                continue
        if start is None:
            continue
        if at - start > longest:
            yield Run(start, last_silence or at)
            over = not last_silence
            start = next_speech if last_silence and next_speech >= last_silence else None
            last_silence = next_speech = silent = 0
            if over or start is None:
                continue
        if probability < rules.quiet:
            silent = silent or at
            if at - silent > _SPLIT_SILENCE:
                last_silence = silent
            if at - silent >= rules.min_silence:
                if silent - start > rules.min_speech:
                    yield Run(start, silent)
                start = None
                last_silence = next_speech = silent = 0
    if start is not None and samples - start > rules.min_speech:
        yield Run(start, samples)


def _padded(runs: Sequence[Run], samples: int, pad: float) -> list[Run]:
    """Return the runs with silence on both sides; two that are close share what is between them."""
    starts, ends = [run.start for run in runs], [run.end for run in runs]
    for number in range(len(runs)):
        if number == 0:
            starts[0] = int(max(0, starts[0] - pad))
        if number + 1 == len(runs):
            ends[number] = int(min(samples, ends[number] + pad))
            continue
        silence = starts[number + 1] - ends[number]
        if silence < 2 * pad:
            ends[number] += silence // 2
            starts[number + 1] = max(0, starts[number + 1] - silence // 2)
        else:
            ends[number] = int(min(samples, ends[number] + pad))
            starts[number + 1] = int(max(0, starts[number + 1] - pad))
    return list(map(Run, starts, ends))


def packed(runs: Sequence[Run], most: int) -> list[list[Run]]:
    """Return the runs in chunks, in order, of at most so many samples where each run has no more."""
    chunks: list[list[Run]] = []
    length = most + 1
    for run in runs:
        if length + run.length > most:
            chunks.append([])
            length = 0
        chunks[-1].append(run)
        length += run.length
    return chunks
