"""Decoding is total: whatever the bytes, there is a valid message or MessageError, and its arrays can be made."""

import contextlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from engines.part import Part, decode_part, encode_part, pack_arrays, unpack_arrays
from schemas.errors import MediaError, MessageError, ModelError
from schemas.fields import NAME_CHARS, clean_name
from schemas.jobs import JobRef, Key
from schemas.media import CodecParameters, Item, MediaInfo
from schemas.messages import CollectRequest, decode
from schemas.parts import PartHeader, PartMessage, PartMeta
from schemas.results import Result
from schemas.segments import Segment
from schemas.subjects import HEADER_COMPUTED, HEADER_FAILED, HEADER_PART, HEADER_UNSEEN
from schemas.wire import pack
from tests.poison_bodies import RAW, Body, bodies, random_body, well_formed

KEY = Key(job=JobRef(id="j", pipeline="p", revision="r"), segment=0)
PIXELS = {"dtype": "|u1", "shape": [2, 3], "buffer": 0}


def taken(body: bytes) -> bool:
    """Whether `body` is a message; nothing but a MessageError of one short line may come of it."""
    try:
        message, buffers = decode(body)
    except MessageError as error:
        return not (str(error).isprintable() and len(str(error)) < 1000)
    if isinstance(message, PartMessage | Result):
        arrays = unpack_arrays(message.arrays, buffers)
        assert all(array.shape == message.arrays[name].shape for name, array in arrays.items())
    if isinstance(message, PartMessage):
        with contextlib.suppress(MediaError):
            decode_part(message, buffers)
    return True


@settings(max_examples=300)
@given(bodies())
def test_any_bytes_are_a_message_or_one_error(body: Body) -> None:
    taken(body[1])
    headers = {HEADER_PART: "0 0 0 1 1 1 0"} | body[2]
    try:
        assert PartHeader.parse(PartHeader.parse(headers).headers()) == PartHeader.parse(headers)
    except MessageError:
        assert headers[HEADER_PART] != "0 0 0 1 1 1 0"


def test_thousands_of_bodies_from_a_seed_reach_both_ends() -> None:
    dice = random.Random(10)
    counts = [taken(random_body(dice)[1]) for _ in range(3000)]
    assert 300 < sum(counts) < 2000
    for _ in range(50):
        kind, meta, buffers = well_formed(dice)
        assert taken(pack(meta, buffers)) == (kind != "media")
        assert not taken(dice.choice(RAW))


TWO = [b"", b""]


def video(**changes: Any) -> dict[str, Any]:
    meta = Segment(
        key=KEY,
        media=MediaInfo(kind="video", width=64, height=48),
        codec=CodecParameters(decoder="h264"),
        start=0,
        end=9,
    ).model_dump(mode="json")
    for path, value in changes.items():
        *above, name = path.split("__")
        place = meta
        for each in above:
            place = place[each]
        place[name] = value
    return meta


@pytest.mark.parametrize(
    ("meta", "buffers", "reason"),
    [
        (video(codec__tag="12345"), TWO, "tag"),
        (video(version=999), TWO, "version"),
        (video(version="evil"), TWO, "version"),
        (video(key__job__id="a\n"), TWO, "key.job.id"),
        (video(key__job__tenant="main.other"), TWO, "key.job.tenant"),
        (video(key__job__pipeline=">"), TWO, "key.job.pipeline"),
        (video(key__job__revision="r" * 65), TWO, "key.job.revision"),
        (video(key__job__generation=-1), TWO, "generation"),
        (video(key__segment=-1), TWO, "segments count from 0"),
        (video(key__part=2**63), TWO, "key.part"),
        (video(media__time_base=[0, 0]), TWO, "time_base"),
        (video(media__time_base=[1, 0]), TWO, "time_base"),
        (video(media__frame_rate=[25, 0]), TWO, "frame_rate"),
        (video(media__width=2**31 - 1), TWO, "width"),
        (video(media__origin=-(2**63)), TWO, "origin"),
        (video(start=10), TWO, "before its start"),
        (video(end=2**63 - 1), TWO, "end"),
        (video(media__timed=False), [], "no items"),
        (video(media__timed=False, items=[{"name": "a"}, {"name": "b"}]), [b"a"], "2 items has 1 buffers"),
        ({"version": 1, "type": "done"}, [], "done.job: missing"),
        ({"version": 1, "type": ["segment"]}, [], "not a rigflow message"),
    ],
)
def test_wrong_content_is_refused_by_field(meta: dict[str, Any], buffers: list[bytes], reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        decode(pack(meta, buffers))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O"}, {"dtype": "V2147483647"}, {"dtype": "<M8"}, {"dtype": ">u2"}, {"dtype": "|u1" * 999},
        {"buffer": 1}, {"buffer": -1}, {"shape": [2, 4]}, {"shape": [-1, -6]}, {"shape": [2**33, 2**33]},
        {"shape": [2, 3] + [1] * 40}, {"shape": [0, 2**31 - 1, 2**31 - 1]}, {"dtype": "<f4"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["part", "result"])
def test_an_array_that_does_not_fit_is_refused(kind: str, changes: dict[str, Any]) -> None:
    meta: dict[str, Any] = {
        "version": 1, "type": kind, "format": "npz",
        "meta": PartMeta(key=KEY, media=MediaInfo(kind="video")).model_dump(),
    }  # fmt: skip
    empty = 0 in changes.get("shape", ())
    assert taken(pack({**meta, "arrays": {"pixels": PIXELS}}, [b"abcdef"]))
    assert not taken(pack({**meta, "arrays": {"pixels": {**PIXELS, **changes}}}, [b"" if empty else b"abcdef"]))


@pytest.mark.parametrize("index", [[[2]], [[-1]], [[2**31 - 1]], [0], [[0], [1]]])
def test_windows_of_frames_that_are_not_there_are_refused(index: list[Any]) -> None:
    meta = PartMeta(key=KEY, media=MediaInfo(kind="video"), pts=(0,))
    pixels = np.zeros((2, 4, 4), np.uint8)
    good = encode_part(Part(meta, {"pixels": pixels, "index": np.array([[1]], np.int32)}))
    bad = encode_part(Part(meta, {"pixels": pixels, "index": np.array(index, np.int32)}))
    message, buffers = decode(good)
    assert isinstance(message, PartMessage)
    assert decode_part(message, buffers).arrays["index"].tolist() == [[1]]
    message, buffers = decode(bad)
    assert isinstance(message, PartMessage)
    with pytest.raises(MediaError, match="`index` of a part"):
        decode_part(message, buffers)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.array([1j]), np.zeros((1,) * 40)])
def test_what_does_not_travel_is_refused_where_it_is_made(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ModelError, match="cannot travel"):
        pack_arrays({"output": array})


@pytest.mark.parametrize(
    "header", ["", "1 2", "0 0 0 1 1 1 -1", "\u0663 0 0 1 1 1 0", f"0 {2**80} 0 1 1 1 0", "0 2147483648 0 1 1 1 0", "a"]
)
def test_a_part_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(MessageError, match="header of a part"):
        PartHeader.parse({HEADER_PART: header})


@pytest.mark.parametrize("count", ["", "-1", "\u0663", "1.5", "9" * 5000, "a"])
def test_a_count_of_a_part_that_is_no_number_counts_as_none(count: str) -> None:
    headers = {HEADER_PART: "0 0 0 1 1 1 0", HEADER_FAILED: count, HEADER_UNSEEN: count, HEADER_COMPUTED: count}
    assert PartHeader.parse(headers) == PartHeader(0, 0, 0, True, True, 1, 0, computed_s=1.5 if count == "1.5" else 0)


def test_names_are_cleaned_not_refused() -> None:
    assert clean_name("ordinary name, \u65e5\u672c\u8a9e \U0001f468\u200d\U0001f469.jpg").endswith(
        "\u200d\U0001f469.jpg"
    )
    assert Item(name="\x1b[2Jred\n\u202egpj\udcff.exe").name == "\ufffd[2Jred\ufffd\ufffdgpj\ufffd.exe"
    long = CollectRequest(job=KEY.job, name="n" * 70_000 + ".mp4").name
    assert len(long) == NAME_CHARS
    assert long.endswith(".mp4")
    with pytest.raises(ValidationError):
        JobRef(id="../x", pipeline="p", revision="r")
