"""Tries a model that speaks on some of its symbols."""

from engines.content import Content
from engines.inference.trial import HINT, limit_memory
from engines.own_process import in_own_process
from engines.speaking.voice import Manner, speak
from schemas.errors import ModelError
from schemas.model import ModelSpec

_SYMBOLS = 24


def spoken(spec: ModelSpec, content: Content) -> str:
    """Return in words what a model made of its first symbols, in a process of its own. Raises ModelError."""
    seconds, rate, count = in_own_process(spec.name, "speaks", HINT, _tried, spec, content)
    voices = spec.speech.voices if spec.speech else ()
    named = f"; voices: {', '.join(voices[:8])}{' ...' if len(voices) > 8 else ''}" if voices else ""
    return f"speaks: {count} symbols became {seconds:.1f} s of sound at {rate} Hz{named}"


def _tried(spec: ModelSpec, content: Content) -> tuple[float, int, int]:
    from engines.inference.onnxruntime import OnnxRuntimeSession

    limit_memory()
    speech = spec.speech
    if speech is None:
        raise ModelError(f"model {spec.name} does not speak")
    inner = [number for ids in list(speech.symbols.values())[-_SYMBOLS:] for number in (*ids, *speech.after)]
    voice = [1.0, *[0.0] * (len(speech.voices) - 1)] if speech.voices else []
    session = OnnxRuntimeSession(content, spec)
    sound = speak(
        session,
        speech,
        [*speech.begin, *inner, *speech.end],
        Manner(voice=voice, noise=speech.noise, steps=speech.steps, guidance=speech.guidance),
    )
    return len(sound) / speech.rate, speech.rate, min(_SYMBOLS, len(speech.symbols))
