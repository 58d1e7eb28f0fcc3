"""The times that an mp4's tables state are those that FFmpeg's demuxer gives, or else all packets are read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.media import survey as surveys
from engines.media.source import Source, packets_of
from engines.media.split import Splitter
from engines.media.survey import Survey
from schemas.errors import MediaError
from schemas.grid import Grid
from tests.clips import Clip, generated, real_clip

FRAMES = 150
CLIPS = [
    Clip(frames=FRAMES),
    Clip(frames=FRAMES, b_frames=0),
    Clip(frames=FRAMES, gop=1, b_frames=0),
    Clip(frames=FRAMES, sound="aac", b_frames=3, open_gop=True),
    Clip(frames=FRAMES, vfr=True, rotation=90),
    Clip(frames=FRAMES, vfr=True, container="mov"),
    Clip(frames=FRAMES, codec="hevc", open_gop=True, sound="aac", container="mov"),
]
WRITTEN = [{"movflags": "negative_cts_offsets"}, {"movflags": "faststart"}, {"use_editlist": "0"}]


def surveyed(source: Source, monkeypatch: pytest.MonkeyPatch, tables: bool = True) -> tuple[Survey, int]:
    """What is known of a film before it is cut, and how many packets were read for it."""
    read = 0

    def counted(*given: Any) -> Iterator[Any]:
        nonlocal read
        for packet in packets_of(*given):
            read += 1
            yield packet

    with monkeypatch.context() as patch:
        patch.setattr(surveys, "packets_of", counted)
        if not tables:
            patch.setattr(surveys, "rows_of_tables", lambda *_: None)
        with Splitter(source, Grid(), 0.5, sound=None) as splitter:
            return splitter.surveyed, read


def facts(found: Survey) -> list[Any]:
    """All of it as lists and numbers."""
    packets, frame = found.packets, found.first
    assert found.places is not None
    numbers = [column.tolist() for column in (packets.pts, packets.keys, packets.shown, found.places)]
    first = frame.pts, frame.to_ndarray().tobytes()
    shown = found.origin, found.end, found.rate, found.reorder, found.notes
    return [numbers, packets.time_base, packets.by_rank, first, shown]


def checked(source: Source, monkeypatch: pytest.MonkeyPatch, by_tables: bool = True) -> Survey:
    found, read = surveyed(source, monkeypatch)
    wanted, all_of_them = surveyed(source, monkeypatch, tables=False)
    assert facts(found) == facts(wanted)
    assert (read < all_of_them / 2) is by_tables
    return found


def copied(source: Path, path: Path, shift: int = 0, **options: str) -> Path:
    with av.open(source) as given, av.open(path, "w", options=options) as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copies[packet.stream_index]
                out.mux(packet)
    return path


def changed(path: Path, copy: Path, box: bytes, at: int, value: int) -> Path:
    """A copy whose first box of that kind has another byte, so many bytes behind the name of its kind."""
    data = bytearray(path.read_bytes())
    data[data.index(box, data.index(b"moov")) + 4 + at] = value
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_tables_state_what_the_demuxer_gives(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = generated(clip)
    found = checked(path, monkeypatch)
    assert found.packets.keys.sum() > 2
    assert facts(surveyed(path.read_bytes(), monkeypatch)[0]) == facts(found)


@pytest.mark.parametrize("options", WRITTEN, ids=str)
@pytest.mark.parametrize("shift", [0, 5000])
def test_so_they_do_however_the_file_is_written(
    options: dict[str, str], shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = generated(Clip(frames=FRAMES, b_frames=3, vfr=True))
    checked(copied(source, tmp_path / "film.mp4", shift, **options), monkeypatch)


def test_so_they_do_of_a_real_film(monkeypatch: pytest.MonkeyPatch) -> None:
    checked(real_clip("bikes"), monkeypatch)


def test_all_packets_of_a_fragmented_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = generated(Clip(frames=FRAMES))
    path = copied(source, tmp_path / "film.mp4", movflags="frag_keyframe+empty_moov")
    checked(path, monkeypatch, by_tables=False)


@pytest.mark.parametrize(
    ("box", "at", "value"),
    [
        (b"stss", 15, 51),  # the second keyframe is said to be the sixth
        (b"stss", 15, 8),  # the second keyframe is said to be a frame that is none
        (b"stsd", 7, 2),  # two headers of the codec
        (b"ctts", 11, 2),  # the first run has another number of frames
    ],
)
def test_all_packets_are_read_where_tables_are_odd(
    box: bytes, at: int, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = generated(Clip(frames=FRAMES))
    path = changed(source, tmp_path / "film.mp4", box, at, value)
    found = checked(path, monkeypatch, by_tables=False)
    assert np.array_equal(found.packets.keys, checked(source, monkeypatch).packets.keys)


def test_all_packets_are_read_of_a_file_of_very_many_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = copied(generated(Clip(frames=FRAMES)), tmp_path / "film.mp4").read_bytes()
    empty = (8).to_bytes(4, "big") + b"free"
    found = checked(film + 20 * empty, monkeypatch)
    assert facts(checked(film + 20_000 * empty, monkeypatch, by_tables=False)) == facts(found)


def test_tables_of_a_film_that_is_cut_short_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = copied(generated(Clip(frames=FRAMES)), tmp_path / "whole.mp4", movflags="faststart").read_bytes()
    with pytest.raises(MediaError, match=r"is truncated: .* of 150 frames are missing"):
        surveyed(whole[: len(whole) * 2 // 3], monkeypatch)
