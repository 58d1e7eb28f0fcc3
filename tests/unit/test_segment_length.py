"""What `segment_s` decides: where the GOPs of a video output begin, and the revision; nothing that is seen or heard."""

from pathlib import Path

import av
import pytest

from pipelines.registry import builtin_pipeline, builtin_pipelines
from tests.films import Sound, make_film, through


@pytest.mark.parametrize("name", builtin_pipelines())
def test_another_segment_length_is_another_revision(name: str) -> None:
    spec = builtin_pipeline(name)
    other = spec.model_copy(update={"segment_s": spec.segment_s + 1})
    assert other.revision != spec.revision
    assert spec.model_copy(update={"description": "other words"}).revision == spec.revision


def test_gops_begin_at_segments_and_parts_and_all_else_is_equal(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [Sound()])  # six seconds of 25 pictures, a keyframe each second
    cuts = {0.5: range(6), 2.0: range(0, 6, 2), 100: range(1)}
    lossless, heard = set(), set()
    for segment_s, starts in cuts.items():
        path, _ = through(film, tmp_path / f"{segment_s}", segment_s, crf=0.0)
        with av.open(path) as container:
            keys = [
                round(packet.pts * packet.time_base * 25)
                for packet in container.demux(video=0)
                if packet.size and packet.is_keyframe
            ]
        ends = [*(25 * start for start in starts[1:]), 150]
        assert keys == [at for start, end in zip(starts, ends, strict=True) for at in range(25 * start, end, 128)]
        with av.open(path) as container:
            lossless.add(tuple((frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)))
        with av.open(path) as container:
            heard.add(tuple((packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size))
    assert (len(lossless), len(heard)) == (1, 1)
