"""Parts made by hand, and what the tests of all formats need."""

import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.encoding import Assembler, Format
from engines.outputs.format import load_format
from engines.part import Part
from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta
from schemas.pipeline import EncodeStage

JOB = JobRef(id="job", pipeline="test", revision="0")
VIDEO = MediaInfo(kind="video", name="clip.mp4", width=64, height=48, time_base=(1, 25), frame_rate=(25, 1))
IMAGES = MediaInfo(kind="image", timed=False)


def format_of(name: str, labels: Mapping[str, tuple[str, ...]] | None = None, **options: Any) -> Format:
    return load_format(EncodeStage(kind="encode", format=name, options=options), labels=labels)


def make_part(
    media: MediaInfo, arrays: Mapping[str, Any], pts: Iterable[int], number: int = 0, items: Sequence[Item] = ()
) -> Part:
    """Part `number` of the only segment; whether it is the last one matters to nobody here."""
    key = Key(job=JOB, segment=0, part=number, last=True, final=True)
    return Part(PartMeta(key=key, media=media, pts=tuple(pts), items=tuple(items)), dict(arrays))


def feed(format_: Format, assembler: Assembler, parts: Iterable[Part]) -> None:
    for part in parts:
        encoded = format_.encode(part)
        assembler.add(part.meta, encoded.arrays, encoded.facts)


def assemble(format_: Format, target: Path, media: MediaInfo, parts: Iterable[Part]) -> list[Path]:
    """The files of a whole job; after an error there are none."""
    assembler = format_.assemble(target, media)
    try:
        feed(format_, assembler, parts)
        return assembler.close()
    finally:
        assembler.abort()


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """No file may grow beyond `most_bytes`: the kernel refuses the write, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
