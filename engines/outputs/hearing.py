"""Runs a model of sound on a file, and describes its answers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engines.content import Content
from engines.inference.heads import Heads
from engines.inference.states import fed_inputs, first_state
from engines.inference.trial import HINT
from engines.media.audio_sound import shaped
from engines.models.sounds import read_sound, windows_of
from engines.own_process import in_own_process
from engines.part import Array
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.model import ModelSpec, SoundSpec, TensorSpec
from schemas.text import count


def sound_input(spec: ModelSpec) -> TensorSpec | None:
    """Return the input of a model that takes sound."""
    return next((tensor for tensor in spec.inputs if tensor.sound), None)


def heard(spec: ModelSpec, content: Content, path: Path) -> Iterator[str]:
    """Yield a line for each array that a model makes of the sound of a file, window by window in their order.

    The model runs in a process of its own. Raises ModelError, UsageError.
    """
    tensor = sound_input(spec)
    if tensor is None or tensor.sound is None:
        raise ModelError(f"model {spec.name} takes no sound", "give a picture")
    windows = windows_of(read_sound(path, tensor.sound), tensor.sound)
    answers = in_own_process(spec.name, "runs", HINT, answers_of, spec, content, windows)
    yield f"{count(len(windows), 'window')} of {tensor.sound.samples / tensor.sound.rate:.3g} s"
    for name, values in answers.items():
        yield f"{name}: {_described(values, tensor.sound)}"


def answers_of(spec: ModelSpec, content: Content, windows: Array) -> dict[str, Array]:
    """Return what a model makes of windows `[W, context + samples]` in their order, its state going from one to the
    next: `[W, ...]` of each array, without the states. Raises ModelError.
    """
    from engines.inference.onnxruntime import OnnxRuntimeSession
    from engines.inference.trial import limit_memory

    limit_memory()
    session, heads, tensor = OnnxRuntimeSession(content, spec), Heads(spec), sound_input(spec)
    assert tensor is not None
    state, feeds = first_state(spec), fed_inputs(spec)
    if unknown := [other.name for other in spec.inputs if other.name not in (tensor.name, *state)]:
        raise ModelError(f"model {spec.name} is not tried: nothing feeds its input {unknown[0]}", "give it a value")
    made: dict[str, list[Array]] = {}
    for window in windows:
        outputs = session.run({tensor.name: shaped(window[None], tensor), **state})
        state = {name: outputs[output] for name, output in feeds.items()}
        answers = {name: outputs[name] for name in heads.unread if name not in feeds.values()}
        for name, value in {**answers, **heads.decode(outputs, [])}.items():
            made.setdefault(name, []).append(np.atleast_1d(value.values if isinstance(value, Ragged) else value))
    return {name: np.concatenate(values) for name, values in made.items()}


def _described(values: Array, sound: SoundSpec) -> str:
    rows = values.reshape(len(values), -1).astype(np.float64)
    best = int(rows.max(axis=1).argmax())
    at = best * sound.samples / sound.rate
    return f"from {rows.min():.3g} to {rows.max():.3g}, highest at {at:.2f} s"
