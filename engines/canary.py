"""Short media that code draws, whose answers tell whether a card computes what it should.

Each call draws the same pixels and samples. A pipeline gets the first one that it takes.
"""

import contextlib
import hashlib
import io
import json
import re
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
from PIL import Image

from engines.media.medium import Input, PipelineMedia, SplitRequest
from engines.part import Array, Part
from engines.ragged import Ragged
from engines.registry import GROUPS
from schemas.jobs import JobRef, Key
from schemas.pipeline import PipelineSpec
from schemas.segments import Segment

WIDTH, HEIGHT, RATE = 64, 48, 16_000
LEAST_FRAMES, MOST_FRAMES = 4, 64
_PACKAGES = ("onnxruntime-gpu", "onnxruntime-genai-cuda")  # which no package that is installed may name
_CANONICAL, _NAME = re.compile(r"[-_.]+"), re.compile(r"[A-Za-z0-9._-]+")
_CODE = (".py", ".so", ".pyd")
_TEXT = b"A canary sings of one small red boat on a quiet lake.\n"


@dataclass(frozen=True, slots=True)
class Canary:
    """Segments of a media, and the hash of what is in them."""

    segments: Sequence[tuple[Segment, Sequence[memoryview]]]
    sha256: str


def canary_of(spec: PipelineSpec) -> Canary | None:
    """The canary of a pipeline; None where no media that is drawn here suits it."""
    frames = max(LEAST_FRAMES, min(MOST_FRAMES, spec.grid.frames + 1))
    drawn: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("canary.mp4", lambda: _film(frames)),
        ("canary.png", _picture),
        ("canary.wav", lambda: tones(2)),
        ("canary.txt", lambda: _TEXT),
    )
    media = PipelineMedia(spec)
    for name, draw in drawn:
        try:
            given = Input(draw(), name)
            request = SplitRequest(spec.grid, spec.segment_s)
            segments = list(_segments(spec, media, given, request))
        except Exception:  # it is of another kind, or a library or a plug-in cannot make it
            continue
        body = b"".join(bytes(each) for _, buffers in segments for each in buffers)
        return Canary(segments, hashlib.sha256(body).hexdigest())
    return None


def _segments(
    spec: PipelineSpec, media: PipelineMedia, given: Input, request: SplitRequest
) -> Iterator[tuple[Segment, Sequence[memoryview]]]:
    job = JobRef(id="rigflow-canary", pipeline=spec.name, revision=spec.revision)
    for number, made in enumerate(media.recognised(given).split([given], request)):
        key = Key(job=job, segment=number, final=made.final)
        yield made.segment(key), [memoryview(bytes(buffer)) for buffer in made.buffers]


def digest_of(parts: Sequence[Part]) -> str:
    """A hash of the arrays of parts, which may be on a GPU."""
    hashed = hashlib.sha256()
    for part in parts:
        for name, value in sorted(part.on_host().arrays.items()):
            arrays = (value.values, value.offsets) if isinstance(value, Ragged) else (value,)
            for array in arrays:
                hashed.update(f"{name} {array.dtype.str} {array.shape} ".encode())
                hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def group_of(*shared: object) -> str:
    """The name of a group of cards that must give equal bits, by all that they share."""
    return hashlib.sha256(json.dumps(shared, default=str, sort_keys=True).encode()).hexdigest()[:32]


@cache
def versions() -> tuple[str, ...]:
    """The releases of all that may compute: rigflow, plug-ins and what these need, as far as it is installed.

    Of rigflow and plug-ins also a hash of their code: it may change while the release does not.
    """
    added = [each for group in GROUPS for each in entry_points(group=f"rigflow.{group}")]
    waiting = ["rigflow", *_PACKAGES, *(each.dist.name for each in added if each.dist is not None)]
    found: dict[str, str] = {}
    while waiting:
        package = _CANONICAL.sub("-", waiting.pop()).lower()
        if package in found:
            continue
        found[package] = ""
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
            waiting += [_NAME.match(each)[0] for each in requires(package) or ()]  # type: ignore[index]
    code = {"engines", *(each.module.partition(".")[0] for each in added)}
    releases = [f"{package} {release}" for package, release in sorted(found.items()) if release]
    return (*releases, *(f"{module} {_code_of(module)}" for module in sorted(code)))


def _code_of(module: str) -> str:
    """A hash of the files of a package, or of a module that is one file."""
    spec = find_spec(module)
    if spec is None:
        return ""
    files = [Path(spec.origin)] if spec.origin else []
    for folder in spec.submodule_search_locations or ():
        files += sorted(each for each in Path(folder).rglob("*") if each.suffix in _CODE)
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def _pixels(number: int) -> Array:
    """Smooth colours, a moving square and noise, `[H, W, 3] uint8`."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [(3 * x + 5 * number) % 256, (4 * y + 7 * number) % 256, (2 * x + 2 * y) % 256]
    picture = np.stack(planes, axis=-1).astype(np.uint8)
    noise = (np.arange(picture.size, dtype=np.uint64) * 2654435761 >> 7) % 32
    picture ^= noise.astype(np.uint8).reshape(picture.shape)
    picture[8 + number % 16 : 24 + number % 16, 10 + number % 24 : 30 + number % 24] = (230, 40, 60)
    return picture


def _film(frames: int) -> bytes:
    """H.264, four frames a second."""
    body = io.BytesIO()
    with av.open(body, "w", format="mp4") as film:
        options = {"g": str(frames), "bf": "0", "threads": "1"}
        track = film.add_stream("libx264", rate=4, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_pixels(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 4)
            film.mux(track.encode(frame))
        film.mux(track.encode(None))
    return body.getvalue()


def _picture() -> bytes:
    body = io.BytesIO()
    Image.fromarray(_pixels(0)).save(body, "png")
    return body.getvalue()


def tones(seconds: int) -> bytes:
    """Three tones, one channel of 16 bits and 16 kHz, as WAVE."""
    at = np.arange(seconds * RATE) / RATE
    samples = np.sin(2 * np.pi * np.outer((220.0, 330.0, 440.0), at)).sum(axis=0) / 4
    body = io.BytesIO()
    with wave.open(body, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return body.getvalue()
