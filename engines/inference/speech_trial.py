"""Tries a model that writes what is said on a sound: tones that rise, of which it makes some tokens or none."""

import numpy as np

from engines.content import Content
from engines.inference.trial import HINT, limit_memory
from engines.own_process import in_own_process
from engines.part import no_tick
from engines.speech.funasr import FunasrRecogniser
from engines.speech.mel import RATE
from engines.speech.recogniser import TranscribeOptions
from engines.speech.transcript import Chunk
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

_SECONDS = 2.0


def written(spec: ModelSpec, content: Content) -> str:
    """Return in words what a model made of tones, in a process of its own. Raises ModelError."""
    text, note = in_own_process(spec.name, "writes", HINT, _tried, spec, content)
    assert spec.recogniser is not None, "it was chosen for that"
    languages = ", ".join(spec.recogniser.languages)
    known = f"writes {languages}, {len(spec.recogniser.tokens)} tokens"
    return f"{known}; of {_SECONDS:.0f} s of tones it made {note or repr(text)}"


def _tried(spec: ModelSpec, content: Content) -> tuple[str, str]:
    from engines.inference.onnxruntime import OnnxRuntimeSession

    limit_memory()
    session = OnnxRuntimeSession(content, spec)
    stage = OperatorStage(kind="transcribe", name="transcribe", model=spec.name)
    recogniser = FunasrRecogniser(stage, spec, TranscribeOptions())
    time = np.arange(round(_SECONDS * RATE)) / RATE
    sound = (0.1 * np.sin(2 * np.pi * (200 + 200 * time) * time)).astype(np.float32)
    [made] = recogniser.transcribe([], [[Chunk(sound, 0, 0.0)]], session, no_tick, lambda rows: None)
    return made.text, made.note
