"""Bodies that strangers could send: well-formed ones, ones with changed content, damaged bytes, invented bytes.

`random_body` makes one from a seed, so that a fleet can be sent thousands; `bodies` is the same as a strategy.
"""

import random
from collections.abc import Callable
from typing import Any

import msgpack
from hypothesis import strategies as st

from schemas.subjects import (
    HEADER_BLOB,
    HEADER_FAILED,
    HEADER_JOB,
    HEADER_NAME,
    HEADER_NOTES,
    HEADER_PART,
    HEADER_TYPE,
    HEADER_UNSEEN,
)

Meta = dict[str, Any]
Body = tuple[str, bytes, dict[str, str]]
KINDS = ("media", "decode", "resize", "infer", "encode", "collect", "results")  # the subjects that workers read
PIPELINE, REVISION = "fingerprint", "0123456789abcdef"
_WILD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**20, 2**31 - 1, 2**31, 2**53, 2**62, -(2**62), 2**62 + 1, 2**63 - 1, 2**64 - 1, -(2**63),
    0.5, float("nan"), float("inf"), 1e308, "", "a b", "a.b", "..", "../../x", ">", "*", "a\n", "a\r\nPUB x 0\r\n",
    "\u202ejob\0x", "x" * 70_000, "9" * 5000, "video", "|O", "V2147483647", "nonsense", b"\xff\xfe",
    [], [[]], [1, 0], [0, 0], [1, 1], [1, 2**31 - 1], [2**31 - 1, 1], [2**31], [2**62, 0], [-1, -1], [0, 2**62],
    [1] * 70, ["a"] * 300, {}, {"type": "segment"},
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"", b"\0", b"\x90", b"\x91\xc0", b"\x91\x80", b"\x91" * 100_000 + b"\xc0",
    b"\x91" + b"\x81\xa1a" * 100_000 + b"\xc0",
    b"\xdd\xff\xff\xff\xff", b"\x91\xdf\xff\xff\xff\xff", b"\x91\xdd\xff\xff\xff\xff", b"\x92\x80\xc6\xff\xff\xff\xff",
    b"\x91\x81\xd6\xff\x00\x00\x00\x01\xa1a", b"\x91\x81\xa4type\xc7\x00\x05", b"\x91\x81\x91\x01\xa1a",
    b"\x91\x81\xa4type\xa2\xed\xa0", b"\x91\x81\x01\x02", b"\x91\xdb\xff\xff\xff\xff", b"\x91\xc1",
)  # fmt: skip


def random_body(
    rng: random.Random, pipeline: str = PIPELINE, revision: str = REVISION, clip: bytes = b"", image: bytes = b""
) -> Body:
    """`(kind of subject, body, headers)`; `pipeline` and `revision` are what a fleet under test serves.

    Segments carry `clip`, an mp4, or `image` where one is given: then only their meta is wrong, and decoders meet it.
    """
    kind, meta, buffers = well_formed(rng, pipeline, revision)
    real = image if meta.get("items") else clip
    if meta.get("type") == "segment" and real:
        buffers = [real for _ in buffers]
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        meta = _changed(rng, meta)
    if rng.random() < 0.25:
        buffers = rng.choice(([], buffers * 2, [b""], [b"12"], [*buffers, b"x"], [*buffers[:-1], b"\0" * 7]))
    try:
        body = msgpack.packb([meta, *buffers])
    except (ValueError, OverflowError):  # a number or a text that msgpack has no bytes for
        body = rng.choice(RAW)
    body = rng.choice((_kept,) * 6 + (_flipped, _cut, _longer, _raw, _noise))(rng, body)
    if rng.random() < 0.2:
        kind = rng.choice(KINDS)
    return kind, body, _headers(rng)


def bodies() -> st.SearchStrategy[Body]:
    """The same, by Hypothesis."""
    return st.randoms(use_true_random=False).map(random_body)


def well_formed(
    rng: random.Random, pipeline: str = PIPELINE, revision: str = REVISION
) -> tuple[str, Meta, list[bytes]]:
    """`(kind of subject, meta, buffers)` of a body that `decode` takes; its media and numbers are invented."""
    job = {
        "id": f"poison-{rng.getrandbits(64):x}", "tenant": "main", "pipeline": pipeline, "revision": revision,
        "priority": rng.choice(("bulk", "interactive")), "generation": 0,
    }  # fmt: skip
    return rng.choice(_MAKERS)(rng, job)


def _key(job: Meta) -> Meta:
    return {"job": job, "segment": 0, "final": True, "part": 0, "last": True}


def _video() -> Meta:
    return {
        "kind": "video", "name": "a.mp4", "codec": "h264", "width": 160, "height": 90, "time_base": [1, 12800],
        "origin": 0, "last": 12288, "pixel_format": "yuv420p", "frame_rate": [25, 1], "end": 12800,
    }  # fmt: skip


def _message(kind: str, **meta: Any) -> Meta:
    return {"version": 1, "type": kind, **meta}


def _video_segment(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    codec = {"decoder": "h264", "width": 160, "height": 90, "pixel_format": "yuv420p"}
    meta = _message("segment", key=_key(job), media=_video(), codec=codec, start=0, end=rng.choice((None, 12800)))
    rows = [(rng.choice((0, 1, 8, 9)), 512 * number, 512, 20) for number in range(10)]
    table = b"".join(column.to_bytes(8, "little") for row in rows for column in row)
    return "decode", meta, [table, rng.randbytes(200)]


def _image_segment(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    names = [f"{number}.jpg" for number in range(rng.randint(1, 4))]
    meta = _message(
        "segment",
        key=_key(job),
        media={"kind": "image", "timed": False, "name": names[0]},
        items=[{"name": name} for name in names],
    )
    return "decode", meta, [rng.randbytes(100) for _ in names]


def _part(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    kind, arrays = rng.choice((
        ("resize", {"frame0": ("|u1", [1, 8]), "frame_info": ("<i4", [1, 29]), "index": ("<i4", [1, 1])}),
        ("infer", {"pixels": ("|u1", [1, 32, 32, 3]), "index": ("<i4", [1, 1])}),
        ("encode", {"descriptor": ("<f4", [1, 4])}),
    ))  # fmt: skip
    specs, buffers = _arrays(rng, arrays)
    return kind, _message("part", meta=_part_meta(job), arrays=specs), buffers


def _result(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    specs, buffers = _arrays(rng, {"descriptor": ("<f4", [1, 4]), "mask": ("|b1", [0, 3])})
    return "results", _message("result", meta=_part_meta(job), format="npz", arrays=specs, facts={"n": [1]}), buffers


def _part_meta(job: Meta) -> Meta:
    return {"key": _key(job), "media": _video(), "pts": [0], "frames": 1, "lost": 0, "notes": ["a note"]}


def _arrays(rng: random.Random, arrays: dict[str, tuple[str, list[int]]]) -> tuple[Meta, list[bytes]]:
    specs, buffers = {}, []
    for number, (name, (dtype, shape)) in enumerate(arrays.items()):
        nbytes = int(dtype[2])
        for size in shape:
            nbytes *= size
        specs[name] = {"dtype": dtype, "shape": shape, "buffer": number}
        buffers.append(rng.choice((bytes(nbytes), rng.randbytes(nbytes))))
    return specs, buffers


def _fragment(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    meta = _message("fragment", key=_key(job), media=_video(), container="matroska")
    return "results", meta, [rng.randbytes(50)]


def _failure(rng: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    segment = rng.choice((-1, 0))
    meta = _message("failure", key={**_key(job), "segment": segment}, stage="infer", error="x", start_s=0.0, end_s=1.0)
    return "results", meta, []


def _done(_: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    return "results", _message("done", job=job, segments=1, frames=1, lost=0, missing=[[0.0, 1.0]], files=["a"]), []


def _collect(_: random.Random, job: Meta) -> tuple[str, Meta, list[bytes]]:
    return "collect", _message("collect", job=job, name="../../etc/passwd"), []


def _media(rng: random.Random, _: Meta) -> tuple[str, Meta, list[bytes]]:
    return "media", {"not": "media"}, [rng.randbytes(300)]


_MAKERS = (
    _video_segment, _image_segment, _part, _part, _result, _fragment, _failure, _done, _collect, _media,
)  # fmt: skip


def _changed(rng: random.Random, value: Any) -> Any:
    """`value` with one thing in it replaced, taken away or added, as deep as chance has it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value, key=str))
        if rng.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if rng.random() < 0.05:
            return {**value, rng.choice(("new", "", "\0", "type", 5)): rng.choice(_WILD)}
        return {**value, key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _changed(rng, value[place]), *value[place + 1 :]]
    return rng.choice(_WILD)


def _headers(rng: random.Random) -> dict[str, str]:
    wild: tuple[str, ...] = (
        "", "a b", "..", ">", "*", "9" * 5000, "\u0663 1 2 0 0 1 1", "-1 0 0 1 1 1 0", "0 0 0 1 1 1 0",
        f"0 {2**80} 0 1 1 1 0", "1 2", "part", "done", "failure", "file", "fragment", "bulk", "no-such-blob",
        "x" * 3000,
    )  # fmt: skip
    names = (HEADER_JOB, HEADER_PART, HEADER_FAILED, HEADER_UNSEEN, HEADER_NOTES, HEADER_NAME, HEADER_TYPE, HEADER_BLOB)
    return {rng.choice(names): rng.choice(wild) for _ in range(rng.choice((0, 0, 1, 2)))}


Damage = Callable[[random.Random, bytes], bytes]


def _kept(_: random.Random, body: bytes) -> bytes:
    return body


def _flipped(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randint(1, 8) if body else 0):
        changed[rng.randrange(min(len(body), 600))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _longer(rng: random.Random, body: bytes) -> bytes:
    return body + rng.randbytes(rng.randint(1, 20))


def _raw(rng: random.Random, _: bytes) -> bytes:
    return rng.choice(RAW)


def _noise(rng: random.Random, _: bytes) -> bytes:
    return rng.randbytes(rng.randrange(600))
