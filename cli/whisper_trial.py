"""Tries a Whisper on the beginning of a file of sound."""

from pathlib import Path

from engines.backends.choice import backend_of
from engines.content import Content
from engines.device.host import Host
from engines.models.sounds import beginning
from engines.own_process import in_own_process
from engines.part import Array, no_tick
from engines.speech.mel import MOST_SAMPLES, RATE
from engines.speech.model import Search, SpeechModel
from engines.speech.network import is_multilingual
from engines.speech.tokens import TASKS, Tokens
from engines.speech.transcriber import Transcriber, Wanted
from engines.speech.transcript import Chunk, Transcript
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings

_HINT = "its library fails on its files: copy or convert them again"
_WANTED = Wanted("", False, TASKS[0], "", "", False, 0.6, -1.0, 3.0)


def said(spec: ModelSpec, content: Content, path: Path) -> list[str]:
    """Return in words what a model hears in the first 30 s of a file; it runs in a process of its own.

    Raises ModelError, UsageError, MediaError.
    """
    sound = beginning(path, RATE, MOST_SAMPLES // RATE)
    found: Transcript = in_own_process(spec.name, "transcribes", _HINT, _tried, spec, content, sound)
    silent = f"{found.no_speech:.2f} that there is no speech"
    return [f"{found.language}, {found.share:.2f} sure; {silent}", found.text.strip() or "no text"]


def _tried(spec: ModelSpec, content: Content, sound: Array) -> Transcript:
    settings = Settings()
    session = backend_of(spec, settings).open(content, spec, Host(settings))
    if not isinstance(session, SpeechModel):
        raise ModelError(f"model `{spec.name}` does not transcribe")
    multilingual = is_multilingual(spec)
    tokens = Tokens(session.tokenizer, multilingual)
    transcriber = Transcriber(session, tokens, multilingual, _WANTED, Search())
    [found] = transcriber.transcribe([[Chunk(sound, 0, 0.0)]], {}, no_tick, lambda _: None)
    return found
