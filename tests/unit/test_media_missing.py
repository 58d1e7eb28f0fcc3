"""Packets that a damaged file lacks in its middle are noted; frames that a film leaves out by itself are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from engines.media.split import Splitter
from tests.clips import Clip, generated
from tests.unit.media_passes import in_segments, pipeline

FRAMES = pipeline()
LONG = Clip(frames=150, size=(96, 112), gop=25)
FIRST, LAST = 50, 99  # the packets that are destroyed: two groups of 25, from 2 to 4 s


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Offset and size of each packet of the picture."""
    with av.open(path) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def notes_of(data: bytes | Path) -> tuple[str, ...]:
    with Splitter(data, FRAMES.grid, 1) as splitter:
        return splitter.surveyed.notes


def counted(path: Path) -> tuple[int, int]:
    """Whole and lost frames, however the film is cut."""
    counts = set()
    for segment_s in (0.5, 3600):
        _, parts = in_segments(path, FRAMES, segment_s)
        counts.add((sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)))
    (both,) = counts
    return both


def remuxed(source: Path, path: Path, left_out: range = range(0), **options: Any) -> Path:
    """A copy of a film without some packets of its picture: nothing of the file is damaged."""
    with av.open(source) as given, av.open(path, "w", **options) as out:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        number = -1
        for packet in given.demux():
            number += packet.stream_index == 0
            if packet.size and not (packet.stream_index == 0 and number in left_out):
                packet.stream = copies[packet.stream_index]
                out.mux(packet)
    return path


@pytest.mark.parametrize(("codec", "sound"), [("h264", ""), ("h264", "aac"), ("mpeg4", "")])
@pytest.mark.parametrize("container", ["mkv", "ts"])
@pytest.mark.parametrize("how", ["zeroed", "noise", "cut out"])
def test_a_hole_in_the_middle_is_noted_in_seconds(
    how: str, container: str, codec: str, sound: str, tmp_path: Path
) -> None:
    if (container, how) == ("mkv", "cut out"):
        pytest.skip("nothing in the file shows it: the elements that are left follow each other")
    clip = replace(LONG, codec=codec, container=container, sound=sound, b_frames=2 if codec == "h264" else 0)
    whole = generated(clip)
    places = packets_of(whole)
    data = bytearray(whole.read_bytes())
    start, end = places[FIRST][0], places[LAST + 1][0] - (0 if container == "ts" else 40)
    damaged = {"zeroed": bytes(end - start), "noise": b"\x5a\x11\xc7" * ((end - start) // 3), "cut out": b""}[how]
    data[start:end] = damaged.ljust(end - start, b"\x5a") if damaged else damaged
    path = tmp_path / whole.name
    path.write_bytes(data)
    got = len(packets_of(path))
    assert 75 <= got <= 100, "FFmpeg goes on at the next cluster of a Matroska file"
    frames, lost = counted(path)
    assert frames + lost == got
    (note,) = (note for note in notes_of(path) if "of the picture are missing" in note)
    seconds, first, last = float(note.split()[4]), float(note.split()[12]), float(note.split()[14])
    assert seconds == pytest.approx((150 - got) / 25, abs=0.13)
    assert (first, last - first) == (pytest.approx(2, abs=0.09), pytest.approx(seconds, abs=0.01))
    assert f"{round(seconds * 25)} frames at its usual rate" in note


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_frames_that_are_in_the_index_of_an_avi_alone_are_counted(codec: str, tmp_path: Path) -> None:
    whole = generated(replace(LONG, codec=codec, container="avi", b_frames=0))
    places, data = packets_of(whole), bytearray(whole.read_bytes())
    data[places[FIRST][0] - 8 : places[LAST + 1][0] - 8] = bytes(places[LAST + 1][0] - places[FIRST][0])
    path = tmp_path / whole.name
    path.write_bytes(data)
    got = len(packets_of(path))
    assert notes_of(path) == (f"the file is damaged: {150 - got} of the 150 frames in its index are missing",)
    assert sum(counted(path)) == got


def test_fragments_of_an_mp4_that_are_not_read_are_noted(tmp_path: Path) -> None:
    path = remuxed(generated(LONG), tmp_path / "fragments.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    data = bytearray(path.read_bytes())
    heads = [at for at in range(len(data)) if data.startswith(b"moof\0\0\0\x10mfhd", at)]
    assert notes_of(bytes(data)) == ()
    data[heads[2] - 4 : heads[4] - 4] = bytes(heads[4] - heads[2])
    damaged = bytes(data)
    assert notes_of(damaged) == (f"the file is damaged: the fragments behind its byte {heads[2] - 4} cannot be read",)


@pytest.mark.parametrize("container", ["mkv", "webm", "mp4", "mov", "ts", "avi"])
def test_a_film_that_leaves_out_frames_is_not_called_damaged(container: str, tmp_path: Path) -> None:
    codec = "vp9" if container == "webm" else "mpeg4" if container == "avi" else "h264"
    sound = {"webm": "libopus", "avi": ""}.get(container, "aac")
    clip = Clip(codec=codec, container=container, vfr=True, sound=sound, b_frames=0 if codec == "mpeg4" else 2)
    assert not any("damaged" in note for note in notes_of(generated(clip)))
    constant = replace(clip, frames=150, gop=25, vfr=False)
    gap = remuxed(generated(constant), tmp_path / f"gap.{container}", range(FIRST, LAST + 1))
    assert not any("damaged" in note for note in notes_of(gap)), "well-formed, though 2 s have no picture"
