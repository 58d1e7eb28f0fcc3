"""Segments of sound that no split stage sent: each becomes parts or a MediaError, and never much memory."""

import contextlib
from typing import Any

import numpy as np
import pytest

from engines.media.audio import Audio
from engines.media.limits import Limits
from engines.media.medium import DecodePlace, Input, SplitRequest
from engines.planned import DecodePlan
from schemas.errors import RigflowError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key, Priority
from schemas.pipeline import DecodeStage
from schemas.segments import Segment
from tests.sounds import file_of, voice

STAGE = DecodeStage(kind="decode", options={"rate": 16000, "window_s": 2.0, "reach_s": 0.5})
KEY = Key(job=JobRef(id="a", tenant="main", pipeline="p", revision="r", priority=Priority.BULK), segment=0, final=True)


def honest() -> tuple[Segment, list[bytes]]:
    data = file_of(voice(3.0, 16000), 16000, "ogg", "libopus", 32000)
    [cut] = Audio(STAGE).split([Input(data, "voice")], SplitRequest(Grid(), 4.0))
    return cut.segment(KEY), [bytes(buffer) for buffer in cut.buffers]


def parts_of(segment: Segment, buffers: list[bytes]) -> int:
    plan = DecodePlan(STAGE, ("audio",), Grid(), {}, {})
    place = DecodePlace(Limits(duration_s=100, windows=1000))
    return sum(len(part.meta.pts) for part in Audio(STAGE).decode(segment, buffers, plan, lambda *_: {}, place))


def changed(segment: Segment, path: str, value: Any) -> Segment:
    where, _, name = path.rpartition(".")
    if where == "facts":
        return segment.model_copy(update={"facts": {**segment.facts, name: value}})
    if where == "media":
        return segment.model_copy(update={"media": segment.media.model_copy(update={name: value})})
    return segment.model_copy(update={name: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("facts.rate", 0),
        ("facts.rate", 768_001),
        ("facts.size", 0),
        ("facts.end", -1),
        ("facts.container", "hls"),
        ("facts.container", "mp4"),
        ("facts.more", 1),
        ("media.time_base", (2, 16000)),
        ("media.time_base", (1, 2**31 - 1)),
        ("media.end", None),
        ("media.end", 1 << 62),
        ("media.origin", -(1 << 62)),
    ],
)
def test_other_facts_are_refused_in_one_line(path: str, value: Any) -> None:
    segment, buffers = honest()
    assert parts_of(segment, buffers) == 2
    with pytest.raises(RigflowError) as raised:
        parts_of(changed(segment, path, value), buffers)
    assert "\n" not in str(raised.value)


def test_any_places_and_bytes_are_silence_or_refused() -> None:
    segment, (head, table, data) = honest()
    rows = np.frombuffer(table, "<i8").reshape(-1, 4)
    random = np.random.default_rng(0)
    for column, value in ((1, -(1 << 61)), (1, 1 << 61), (1, 0), (2, 0), (2, 1 << 61), (2, -5)):
        other = rows.copy()
        other[:, column] = value
        parts_of(segment, [head, other.tobytes(), data])
    parts_of(segment, [head, table, random.bytes(len(data))])
    parts_of(segment, [head, b"", b""])
    parts_of(changed(segment, "start", 1 << 60), [head, table, data])
    for buffers in (
        [],
        [head],
        [head, table[:-1], data],
        [head, table, data[:-1]],
        [b"", table, data],
        [data, table, data],
    ):
        with pytest.raises(RigflowError):
            parts_of(segment, buffers)
    for place in random.integers(0, len(head), 30):
        broken = bytearray(head)
        broken[place] ^= 1 << int(random.integers(8))
        with contextlib.suppress(RigflowError):
            parts_of(segment, [bytes(broken), table, data])


def test_packets_that_hold_more_sound_than_they_state_are_refused() -> None:
    segment, (head, table, data) = honest()
    rows = np.tile(np.frombuffer(table, "<i8").reshape(-1, 4), (60, 1)).copy()
    with pytest.raises(RigflowError, match="its packets hold more sound than they state"):
        parts_of(segment, [head, rows.tobytes(), data * 60])
