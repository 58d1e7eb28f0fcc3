"""Preprocessing in another process gives the same bytes as preprocessing while decoding."""

from typing import Any

import av
import numpy as np
import pytest

from engines.media.frames import pack_frame, unpack_frames
from engines.media.images import decode_images
from engines.part import Part, decode_part, encode_part
from engines.pictures import resized_part
from schemas.errors import MediaError
from schemas.jobs import Key
from schemas.media import Item, MediaInfo
from schemas.messages import decode
from schemas.parts import PartMessage, PartMeta
from schemas.segments import Segment
from tests.clips import Clip, generated, pictures, still
from tests.plans import converter, decode_plan
from tests.unit.media_passes import JOB, decoded, pipeline, segments_of

LAYOUTS = [
    {"layout": "planes"},
    {"size": [20, 31], "layout": "rgb", "fit": "crop"},
    {"size": [32, 32], "layout": "gray"},
]
FORMATS = ["yuv420p", "yuvj422p", "yuv444p10le", "nv12", "gray", "rgb24", "rgba", "bgr0", "gbrp", "yuyv422", "p010le"]


def over_the_wire(part: Part) -> Part:
    message, buffers = decode(encode_part(part))
    assert isinstance(message, PartMessage)
    return decode_part(message, buffers)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout["layout"]))
@pytest.mark.parametrize(
    "clip",
    [
        Clip(size=(71, 129), pixel_format="yuv444p"),
        Clip(pixel_format="yuv420p10le"),
        Clip(rotation=270, colour=(1, 1, 1, 1)),
    ],
    ids=lambda clip: clip.name,
)
def test_two_processes_equal_one(clip: Clip, layout: dict[str, Any]) -> None:
    spec = pipeline(frames=2, **layout)
    media, segments = segments_of(generated(clip), spec, 0.5)
    together = decoded(media, segments, spec, converter(spec).convert)
    pre = converter(spec)
    apart = [resized_part(over_the_wire(part), pre) for part in decoded(media, segments, spec, pack_frame)]
    assert_equal(apart, together)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout["layout"]))
def test_images_of_all_sizes_and_formats_equal_too(layout: dict[str, Any]) -> None:
    files = [
        still("mjpeg", (40, 60)),
        still("png", (33, 47), pixel_format="rgba"),
        b"no image",
        still("libwebp", (64, 20)),
        still("png", (8, 9), pixel_format="gray"),
        still("png", (10, 10), pixel_format="ya8"),
    ]
    spec = pipeline(frames=2, **layout)
    key = Key(job=JOB, segment=0, final=True)
    items = tuple(Item(name=str(number)) for number in range(len(files)))
    segment = Segment(key=key, media=MediaInfo(kind="image", timed=False), items=items)
    together = list(decode_images(segment, files, decode_plan(spec), converter(spec).convert))
    pre = converter(spec)
    apart = [
        resized_part(over_the_wire(part), pre) for part in decode_images(segment, files, decode_plan(spec), pack_frame)
    ]
    assert_equal(apart, together)


def test_a_part_without_frames_keeps_its_shapes() -> None:
    spec = pipeline(fps=0.5, size=[8, 6], layout="gray")
    media, segments = segments_of(generated(Clip()), spec, 0.4)
    raw = decoded(media, segments[1:2], spec, pack_frame)[0]
    part = resized_part(over_the_wire(raw), converter(spec))
    assert part.arrays["pixels"].shape == (0, 8, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_a_frame_comes_back_as_it_was(name: str) -> None:
    picture = next(pictures(Clip(size=(38, 54))))
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=name)
    frame.colorspace, frame.color_range = 9, 2
    arrays = {key: array[None] for key, array in pack_frame(frame, 7).items()}
    arrays["index"] = np.zeros((1, 1), np.int32)
    meta = PartMeta(key=Key(job=JOB, segment=0), media=MediaInfo(kind="video"), pts=(0,))
    [(back, orientation)] = unpack_frames(Part(meta, arrays))
    assert (back.width, back.height, back.format.name, orientation) == (54, 38, name, 7)
    assert (int(back.colorspace), int(back.color_range)) == (9, 2)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(pack_frame(back).values(), pack_frame(frame).values(), strict=True)
        if a.ndim and a.dtype == np.uint8
    )


def test_line_padding_does_not_travel() -> None:
    """What lies behind the lines is memory that was never written: it may be anyone's."""
    frame = av.VideoFrame(50, 10, "yuv420p")
    assert frame.planes[0].line_size > 50
    assert [array.size for array in pack_frame(frame).values()] == [500, 125, 125, 29]


def assert_equal(found: list[Part], expected: list[Part]) -> None:
    assert [part.meta for part in found] == [part.meta for part in expected]
    for part, other in zip(found, expected, strict=True):
        assert part.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(part.arrays[name], other.arrays[name]) for name in part.arrays)


INFO = [8, 4, 1, 2, 0, *b"gray".ljust(24, b"\0")]


@pytest.mark.parametrize(
    "changes",
    [
        {0: 2**31 - 1, 1: 2**31 - 1}, {0: 0}, {1: -4}, {1: 5}, {2: 0}, {2: 9}, {3: -1}, {4: 2**31 - 1},
        {5: 0}, {5: 300}, {8: -1}, dict(enumerate(b"cuda", 5)), dict(enumerate(b"yuv420p", 5)),
    ],
)  # fmt: skip
def test_facts_that_lie_about_a_frame_are_refused(changes: dict[int, int]) -> None:
    """Of a few bytes nobody gets a picture of gigabytes, and nothing is read behind a plane."""
    meta = PartMeta(key=Key(job=JOB, segment=0), media=MediaInfo(kind="video"), pts=(0,))
    planes = {"frame0": np.zeros((1, 32), np.uint8), "index": np.zeros((1, 1), np.int32)}
    facts = np.array([[changes.get(place, value) for place, value in enumerate(INFO)]], np.int32)
    pre = converter(pipeline(layout="planes"))
    whole = resized_part(Part(meta, {**planes, "frame_info": np.array([INFO], np.int32)}), pre)
    assert whole.arrays["plane0"].shape == (1, 4, 8)
    with pytest.raises(MediaError, match=r"raw frame"):
        resized_part(over_the_wire(Part(meta, {**planes, "frame_info": facts})), pre)
    for lacking in ({}, {"frame_info": facts[:, :12]}, {"frame_info": facts.astype(np.int64)}):
        with pytest.raises(MediaError, match="no raw frames"):
            resized_part(Part(meta, {**planes, **lacking}), pre)
