"""Damaged media: clips and images of every kind, and what can befall their bytes."""

import random
from collections.abc import Callable
from pathlib import Path

import av

from tests.clips import Clip, generated, make_clip, real_clip, still

Damage = Callable[[bytearray, random.Random, list[bytes]], bytearray]
HEAD_BYTES = 1024  # of most files, what says how the rest is to be read
GENERATED = (
    Clip(frames=30),
    Clip(frames=30, container="mkv", sound="aac", open_gop=True, b_frames=3),
    Clip(frames=30, container="ts"),
    Clip(frames=30, container="mov", rotation=0, vfr=True),
    Clip(frames=20, codec="hevc"),
    Clip(frames=30, codec="vp9", container="webm", sound="libopus"),
    Clip(frames=30, codec="mpeg4", container="avi", sound="mp2"),
    Clip(frames=10, codec="av1", container="mkv"),
)

SMALL = (
    Clip(size=(64, 80)),
    Clip(size=(64, 80), open_gop=True, container="mkv", b_frames=3),
    Clip(size=(64, 80), container="ts"),
    Clip(size=(64, 80), container="avi"),
    Clip(size=(64, 80), container="h264"),
    Clip(codec="hevc", size=(64, 80), container="mkv"),
    Clip(codec="vp9", container="webm", size=(64, 80)),
    Clip(codec="mpeg4", container="avi", size=(64, 80)),
    Clip(codec="mpeg4", container="ts", size=(64, 80)),
)


def sources(folder: Path) -> dict[str, bytes]:
    """Whole files by name: the first seconds of real clips, generated clips, images."""
    found = {f"{name}.mp4": _first_seconds(folder, name, 2.0) for name in ("bikes", "carphone_pristine")}
    found |= {clip.name: make_clip(folder, clip).read_bytes() for clip in GENERATED}
    return found | {f"still.{codec}": still(codec) for codec in ("mjpeg", "png", "libwebp")}


def damaged(data: bytes, chance: random.Random, others: list[bytes]) -> tuple[str, bytes]:
    """What happened, and what is left."""
    damage = chance.choice((_flip, _flip_head, _truncate, _zero, _splice, _repeat, _insert))
    return damage.__name__.strip("_"), bytes(damage(bytearray(data), chance, others))


def changed(chance: random.Random) -> tuple[str, bytes]:
    """A small clip that was damaged: its name with what happened, and what is left of it."""
    clip = chance.choice(SMALL)
    how, body = damaged(generated(clip).read_bytes(), chance, [generated(each).read_bytes() for each in SMALL])
    return f"{how}-{clip.name}", body


def overwritten(folder: Path, codec: str, rest: int) -> Path:
    """A film whose pictures have zeros behind their first third, but for the last `rest` of them."""
    path = make_clip(folder, Clip(codec=codec, frames=12, gop=1, b_frames=0, size=(96, 160)))
    data = bytearray(path.read_bytes())
    with av.open(path) as film:
        packets = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.size]
    for at, size in packets[: len(packets) - rest]:
        data[at + size // 3 : at + size] = bytes(size - size // 3)
    lost = folder / f"lost{rest}.mp4"
    lost.write_bytes(data)
    return lost


def _first_seconds(folder: Path, name: str, seconds: float) -> bytes:
    path = folder / f"{name}.mp4"
    with av.open(real_clip(name)) as given, av.open(path, "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.pts is not None and packet.time_base is not None and packet.pts * packet.time_base < seconds:
                packet.stream = copy
                out.mux(packet)
    return path.read_bytes()


def _flip(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    for _ in range(int(2 ** chance.uniform(0, 10))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _flip_head(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    """Bits of the first or last kilobyte, where indexes and headers are."""
    start = chance.choice((0, max(0, len(data) - HEAD_BYTES)))
    for _ in range(chance.randrange(1, 12)):
        data[min(len(data) - 1, start + chance.randrange(HEAD_BYTES))] ^= 1 << chance.randrange(8)
    return data


def _truncate(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    return data[: chance.randrange(len(data))]


def _zero(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    start, length = chance.randrange(len(data)), int(len(data) ** chance.random())
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def _splice(data: bytearray, chance: random.Random, others: list[bytes]) -> bytearray:
    """One file's beginning, another's end."""
    other = chance.choice(others)
    return data[: chance.randrange(1, min(len(data), 4 * HEAD_BYTES))] + other[chance.randrange(len(other)) :]


def _repeat(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    start, end = sorted(chance.sample(range(len(data)), 2))
    return data[:end] + data[start:]


def _insert(data: bytearray, chance: random.Random, _: list[bytes]) -> bytearray:
    start = chance.randrange(len(data))
    return data[:start] + chance.randbytes(chance.randrange(1, 4096)) + data[start:]
