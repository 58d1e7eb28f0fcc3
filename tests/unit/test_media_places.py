"""Segments read where packets lie are those that FFmpeg's demuxer gives."""

import io
from dataclasses import replace
from pathlib import Path

import av
import pytest

from engines.media.segment_data import SegmentData
from engines.media.source import Source
from engines.media.split import Splitter
from schemas.errors import MediaError
from schemas.grid import Grid
from tests.clips import Clip, generated, real_clip

CLIPS = [
    Clip(),
    Clip(sound="aac"),
    Clip(b_frames=3, open_gop=True),
    Clip(vfr=True, rotation=90),
    Clip(codec="hevc", open_gop=True),
    Clip(codec="hevc", sound="aac", container="mov"),
]
ELSEWHERE = [Clip(container="mkv"), Clip(container="ts"), Clip(codec="mpeg4"), Clip(codec="av1")]


def cut(source: Source, grid: Grid, places: bool) -> list[SegmentData]:
    with Splitter(source, grid, 0.5, sound=None) as splitter:
        assert (splitter.surveyed.places is not None) >= places
        if not places:
            splitter.surveyed = replace(splitter.surveyed, places=None)
        return [replace(each, content=each.buffers) for each in splitter.segments()]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
@pytest.mark.parametrize("grid", [Grid(), Grid(frames=9, warm_up=3)], ids=["windows of one frame", "with a warm-up"])
def test_segments_are_those_of_the_demuxer(clip: Clip, grid: Grid) -> None:
    path = generated(clip)
    wanted = cut(path, grid, False)
    assert len(wanted) > 2
    assert cut(path, grid, True) == wanted
    assert [each.buffers for each in cut(path.read_bytes(), grid, True)] == [each.buffers for each in wanted]


def test_segments_of_a_fragmented_file_are_those_of_the_demuxer(tmp_path: Path) -> None:
    path = tmp_path / "fragments.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(generated(Clip(sound="aac"))) as given, av.open(path, "w", options=options) as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                out.mux(packet)
    assert cut(path, Grid(), True) == cut(path, Grid(), False)


def test_segments_of_a_real_film_are_those_of_the_demuxer() -> None:
    path = real_clip("bigbuckbunny")
    assert cut(path, Grid(), True) == cut(path, Grid(), False)


@pytest.mark.parametrize("clip", ELSEWHERE, ids=lambda clip: clip.name)
def test_other_containers_and_codecs_are_left_to_the_demuxer(clip: Clip) -> None:
    with Splitter(generated(clip), Grid(), 0.5, sound=None) as splitter:
        assert splitter.surveyed.places is None


def test_a_file_that_is_cut_short_between_survey_and_segments_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(generated(Clip(frames=200, size=(144, 256))).read_bytes())
    with Splitter(path, Grid(), 0.5, sound=None) as splitter:
        segments = splitter.segments()
        next(segments)
        with path.open("r+b") as file:
            file.seek(0, io.SEEK_END)
            file.truncate(file.tell() // 2)
        with pytest.raises(MediaError, match="changed while it was read"):
            list(segments)
