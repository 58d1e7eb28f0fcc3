"""Media of uncompressed frames: any pixel format comes back sample for sample, and foreign segments are refused."""

from collections.abc import Iterator

import av
import numpy as np
import pytest

from engines.media.even import EvenFrames, EvenMedium
from engines.media.frames import plane_rows
from engines.media.limits import Limits
from engines.media.medium import DecodePlace, Input, Match, SplitRequest
from engines.media.read_at import ReadAt
from engines.options import Options
from engines.part import Array
from engines.planned import DecodePlan
from schemas.errors import ItemTooLarge, MediaError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.pipeline import DecodeStage
from schemas.segments import Segment

STAGE, GRID = DecodeStage(kind="decode"), Grid(frames=2)
PLAN = DecodePlan(STAGE, ("stack",), GRID, {}, {})
KEY = Key(job=JobRef(id="j", pipeline="p", revision="0"), segment=0)
COUNT, HEIGHT, WIDTH, HEADER = 7, 5, 9, b"header"


class Bytes(EvenMedium[Options]):
    """Frames behind six bytes; `shown` is their pixel format."""

    kind = "bytes"
    options_class = Options
    shown = "yuv420p"

    def sniff(self, head: bytes, given: Input) -> Match:
        return Match.NO

    def frames(self, read: ReadAt, name: str) -> EvenFrames:
        return EvenFrames(COUNT, HEIGHT, WIDTH, self.shown, len(HEADER), 10)


def planes_of(frame: av.VideoFrame) -> Array:
    return np.concatenate([plane_rows(frame, number).reshape(-1) for number in range(len(frame.planes))])


def decoded(medium: Bytes, segment: Segment, data: bytes, place: DecodePlace | None = None) -> Iterator[Array]:
    """The bytes of each window's frames."""
    parts = medium.decode(segment, [data], PLAN, lambda frame, _: {"planes": planes_of(frame)}, place or DecodePlace())
    return (part.array("planes")[row] for part in parts for row in part.array("index"))


@pytest.mark.parametrize(("shown", "nbytes"), [("yuv420p", 75), ("gray16le", 90), ("rgb24", 135), ("yuv422p10le", 190)])
def test_frames_come_back_sample_for_sample(shown: str, nbytes: int) -> None:
    medium = Bytes(STAGE)
    medium.shown = shown
    frames = np.random.default_rng(0).integers(0, 256, (COUNT, nbytes), np.uint8)
    file = Input(HEADER + frames.tobytes(), "a")
    segments = list(medium.split([file], SplitRequest(GRID, 0.3)))
    assert [(each.start, each.end) for each in segments] == [(0, 3), (3, 6), (6, None)]
    windows = [row for each in segments for row in decoded(medium, each.segment(KEY), bytes(each.buffers[0]))]
    expected = [frames[[number, min(number + 1, COUNT - 1)]] for number in range(COUNT)]
    np.testing.assert_array_equal(windows, expected)
    with pytest.raises(MediaError, match="a is truncated"):
        list(medium.split([Input(file.source[:-1], "a")], SplitRequest(GRID, 0.3)))  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "data", "words"),
    [
        ({}, bytes(74), "other bytes than those of its frames"),
        ({"pixel_format": "smell"}, bytes(75), "no pixel format `smell`"),
        ({"pixel_format": ""}, bytes(75), "no pixel format ``"),
        ({"width": 0}, bytes(75), "9x5|0x5"),
    ],
)
def test_a_foreign_segment_is_refused(fields: dict[str, object], data: bytes, words: str) -> None:
    media = MediaInfo(kind="bytes", width=WIDTH, height=HEIGHT, time_base=(1, 10), pixel_format="yuv420p")
    segment = Segment(key=KEY, media=media.model_copy(update=fields))
    with pytest.raises(MediaError, match=words):
        list(decoded(Bytes(STAGE), segment, data))


def test_a_frame_beyond_the_limits_is_refused_before_it_is_made() -> None:
    media = MediaInfo(kind="bytes", width=WIDTH, height=HEIGHT, time_base=(1, 10), pixel_format="yuv420p")
    with pytest.raises(ItemTooLarge):
        list(decoded(Bytes(STAGE), Segment(key=KEY, media=media), bytes(75), DecodePlace(limits=Limits(pixels=44))))
