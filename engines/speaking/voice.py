"""Runs a model that speaks on the symbols of one sentence."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.part import Array
from engines.ports import Session
from schemas.errors import ModelError
from schemas.speech import SpeechSpec

_TABLE_BITS = 18  # of the table of random numbers, see engines.models.speech
_QUIET = 1e-3  # of the loudest sample: 60 dB below it counts as silence
_KEPT_S = 0.02  # of the silence at the ends
_LEAST_PEAK = 0.01  # what is quieter is silence, and is not made loud
_MOST_S = 600  # of one sentence


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak: `speed` 1 is the voice's own; `voice`: the share of each voice; `seed` of random numbers.

    `steps` and `guidance` are of cloned voices.
    """

    speed: float = 1.0
    voice: Sequence[float] = ()
    noise: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    trim: bool = True
    steps: int = 0
    guidance: float = 0.0


def speak(session: Session, speech: SpeechSpec, symbols: Sequence[int], manner: Manner) -> Array:
    """Return the sound of symbols, float32 `[S]`: a function of them and the manner alone. Raises ModelError."""
    known: dict[str, Array] = {
        "symbols": np.array([symbols], np.int64),
        "speed": np.array([manner.speed], np.float32),
        "voice": np.array([manner.voice], np.float32),
        "noise": np.array([manner.noise], np.float32),
        "steps": np.array([manner.steps], np.int64),
        "guidance": np.array([manner.guidance], np.float32),
        "draw": np.array([_draw(manner.seed, symbols)], np.int64),
    }
    names = [tensor.name for tensor in session.spec.inputs]
    if unknown := [name for name in names if name not in known]:
        raise ModelError(
            f"model `{session.spec.name}` speaks, and nothing feeds its input {unknown[0]}", "add it again"
        )
    made = session.run({name: known[name] for name in names})
    sound = np.asarray(made["sound"], np.float32).reshape(-1)
    if not np.isfinite(sound).all():
        raise ModelError(f"model `{session.spec.name}` gave sound that is no number", "take it in fp32")
    if len(sound) > _MOST_S * speech.rate:
        raise ModelError(f"model `{session.spec.name}` made more than {_MOST_S} s of one sentence", "speak faster")
    sound = trimmed(sound, speech.rate) if manner.trim else sound
    peak = float(np.abs(sound).max(initial=0))
    return sound / np.float32(peak) if speech.peak and peak > _LEAST_PEAK else sound


def _draw(seed: int, symbols: Sequence[int]) -> tuple[int, int]:
    """Return where in the table of random numbers a sentence begins, and its step, which is odd."""
    digest = hashlib.sha256(f"{seed} {' '.join(map(str, symbols))}".encode()).digest()
    mask = (1 << _TABLE_BITS) - 1
    return int.from_bytes(digest[:8], "big") & mask, int.from_bytes(digest[8:16], "big") & mask | 1


def trimmed(sound: Array, rate: int) -> Array:
    """Return sound without silence at its ends, but `_KEPT_S` of it."""
    level = np.abs(sound)
    loud = np.flatnonzero(level > _QUIET * level.max(initial=0))
    if not len(loud):
        return sound[:0]
    kept = round(_KEPT_S * rate)
    return sound[max(0, int(loud[0]) - kept) : int(loud[-1]) + 1 + kept]
