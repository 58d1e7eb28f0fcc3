"""The source's sound, packet for packet, where it was."""

import io
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import lcm
from pathlib import Path

import av
import numpy as np
import pytest

from engines.outputs.format import Assembler
from schemas.errors import MediaError
from schemas.messages import MediaInfo
from tests.unit.outputs_parts import VIDEO, feed, format_of
from tests.unit.test_outputs_video import cut, decoded, planes_of

FORMAT = format_of("video", preset="ultrafast")
RATE = 44100
Packets = list[tuple[bytes, Fraction]]


@cache
def source(codec: str, rate: int, container: str, seconds: int, tracks: int = 1) -> bytes:
    """A file with `tracks` sound streams only."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream(codec, rate=rate, layout="stereo") for _ in range(tracks)]
        for number, stream in enumerate(streams):
            wave = np.sin(np.arange(rate * seconds) * (0.03 + number / 50)) * 8000
            samples = np.repeat(wave.astype(np.int16), 2)[None]
            for start in range(0, rate * seconds, rate // 10):
                piece = np.ascontiguousarray(samples[:, 2 * start : 2 * (start + rate // 10)])
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return file.getvalue()


def packets(data: bytes | Path, track: int = 0) -> Packets:
    with av.open(data if isinstance(data, Path) else io.BytesIO(data)) as container:
        stream = container.streams.audio[track]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(stream) if packet.size]


def fragment(data: bytes, start: float, end: float, carrier: str) -> bytes:
    """The packets in `[start, end)` seconds, stream-copied into a file of their own, as split makes it."""
    file = io.BytesIO()
    options = {"movie_timescale": str(lcm(44100, 48000))} if carrier == "mp4" else {"avoid_negative_ts": "disabled"}
    with av.open(io.BytesIO(data)) as container, av.open(file, "w", format=carrier, options=options) as output:
        copies = [output.add_stream_from_template(stream, opaque=True) for stream in container.streams.audio]
        for packet in container.demux():
            if packet.size and start <= packet.pts * packet.time_base < end:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    return file.getvalue()


def pictures(assembler: Assembler, media: MediaInfo, first: int, count: int) -> None:
    """The parts of one segment: frames `first ...`, in 8s."""
    sizes = [8] * (count // 8) + [count % 8]
    pts = range(media.origin + first, media.origin + first + count)
    feed(FORMAT, assembler, cut(media, planes_of(count), pts, sizes))


def run(target: Path, media: MediaInfo, data: bytes, carrier: str, silent: int = 0) -> tuple[Path, list[str]]:
    """Three segments of a second each; the first `silent` ones bring no sound."""
    assembler = FORMAT.assemble(target, media)
    try:
        for segment in range(3):
            if segment >= silent:
                start = -9 if segment == silent else segment
                assembler.add_sound(carrier, fragment(data, start, segment + 1, carrier))
            pictures(assembler, media, 25 * segment, 25)
        return assembler.close()[0], assembler.notes
    finally:
        assembler.abort()


def media_with(*codecs: str) -> MediaInfo:
    return VIDEO.model_copy(update={"sound": codecs})


@pytest.mark.parametrize("carrier", ["mp4", "matroska"])
@pytest.mark.parametrize(("codec", "rate"), [("aac", 44100), ("aac", 48000), ("ac3", 48000), ("libmp3lame", 44100)])
def test_packets_are_the_sources_own_at_their_times(tmp_path: Path, codec: str, rate: int, carrier: str) -> None:
    data = source(codec, rate, "mp4", 3)
    path, notes = run(tmp_path / "a", media_with(codec.removeprefix("lib").removesuffix("lame")), data, carrier)
    found, expected = packets(path), packets(data)
    assert path.suffix == ".mp4"
    assert notes == []
    assert [body for body, _ in found] == [body for body, _ in expected]
    error = max(abs(time - due) for (_, time), (_, due) in zip(found, expected, strict=True))
    assert error <= (0 if carrier == "mp4" else Fraction(1, 1000))
    gaps = {late - early for (_, early), (_, late) in pairwise(found[1:])}
    assert len(gaps) == 1  # rounding left none between packets
    assert len(decoded(path)) == 75


def test_sound_and_picture_lie_side_by_side(tmp_path: Path) -> None:
    path, _ = run(tmp_path / "a", media_with("aac"), source("aac", RATE, "mp4", 3), "matroska")
    with av.open(path) as container:
        order = [packet.stream.type for packet in container.demux() if packet.size]
    longest = max(len(run_) for run_ in "".join(kind[0] for kind in order).split("v"))
    assert longest < 50


def test_late_sound_is_waited_for_and_complete(tmp_path: Path) -> None:
    data = source("aac", RATE, "mp4", 3)
    path, notes = run(tmp_path / "a", media_with("aac"), data, "matroska", silent=2)
    assert [body for body, _ in packets(path)] == [body for body, _ in packets(data)]
    assert len(decoded(path)) == 75
    assert notes == []
    assert list(tmp_path.iterdir()) == [path]


def test_sound_that_never_comes_is_not_waited_for_at_the_end(tmp_path: Path) -> None:
    path, _ = run(tmp_path / "a", media_with("aac"), b"", "matroska", silent=3)
    assert len(decoded(path)) == 75
    with av.open(path) as container:
        assert not container.streams.audio


def test_all_tracks_come_along(tmp_path: Path) -> None:
    data = source("aac", RATE, "mp4", 3, tracks=2)
    path, _ = run(tmp_path / "a", media_with("aac", "aac"), data, "mp4")
    for track in range(2):
        assert packets(path, track) == packets(data, track)
    assert packets(path, 0) != packets(path, 1)


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", ".mov"), ("pcm_u8", ".mov"), ("wavpack", ".mkv")])
def test_sound_that_mp4_cannot_hold(tmp_path: Path, codec: str, suffix: str) -> None:
    data = source(codec, RATE, "matroska", 3)
    path, notes = run(tmp_path / "a", media_with(codec), data, "matroska")
    assert path == tmp_path / f"a{suffix}"
    assert notes == [f"mp4 cannot hold {codec}: written as {suffix[1:]}"]
    assert b"".join(body for body, _ in packets(path)) == b"".join(body for body, _ in packets(data))
    assert [frame.pts * frame.time_base for frame in decoded(path)] == [Fraction(n, 25) for n in range(75)]


def test_sound_that_nothing_can_hold_is_left_out_and_said_so(tmp_path: Path) -> None:
    path, notes = run(tmp_path / "a", media_with("wmav2"), source("aac", RATE, "mp4", 3), "mp4")
    assert path == tmp_path / "a.mp4"
    assert notes == ["no container can hold wmav2: the sound is left out"]
    assert len(decoded(path)) == 75


def test_sound_moves_with_a_picture_that_begins_before_zero(tmp_path: Path) -> None:
    data = source("aac", RATE, "mp4", 3)
    media = VIDEO.model_copy(update={"sound": ("aac",), "origin": -10})
    path, notes = run(tmp_path / "a", media, data, "mp4")
    assert packets(path) == [(body, time + Fraction(10, 25)) for body, time in packets(data)]
    assert notes == ["begins 0.400 s before 0: moved to begin at 0"]


def test_sound_that_is_no_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    assembler = FORMAT.assemble(tmp_path / "a", media_with("aac"))
    assembler.add_sound("matroska", b"not a file")
    with pytest.raises(MediaError, match="the sound of a segment is not a matroska file"):
        pictures(assembler, media_with("aac"), 0, 8)
    assembler.abort()
    assert list(tmp_path.iterdir()) == []
