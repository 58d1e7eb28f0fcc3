"""Parts of one job from different encoders of H.264: one file that shows every picture, wherever one begins to look."""

import random
from pathlib import Path

import av
import numpy as np
import pytest

from engines.encoding import Encoded, Pictures, VideoOptions
from engines.media.head import Tags, write_head
from engines.outputs.gop import encode_gop, frames_of, geometry_of, new_encoder
from engines.outputs.software import Software
from engines.outputs.video import VideoFormat
from engines.part import Array, Tick, no_tick
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.pipeline import EncodeStage
from schemas.segments import Fragment
from tests.unit.outputs_parts import JOB, VIDEO, make_part
from tests.unit.test_outputs_video import plane_of, planes_of, psnr

STAGE = EncodeStage(kind="encode", format="video")
PER_PART, COUNT = 6, 36


class Plain:
    """H.264 as a small encoder in hardware writes it: no B-pictures, no CABAC, its own parameter sets of number 0."""

    on_gpu = False

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        geometry = geometry_of(pictures.planes)
        encoder = new_encoder("libx264", geometry, pictures)
        encoder.options = {"profile": "baseline", "crf": "18", "x264-params": "ref=1:bframes=0:weightp=0:aud=1"}
        made = encode_gop(encoder, frames_of(pictures.planes, geometry))
        return Encoded(made.arrays, made.facts | {"encoder": "plain"})


def joined(
    folder: Path, media: MediaInfo, planes: dict[str, Array], turns: str, container: str = "mp4"
) -> tuple[Path, list[str], set[bytes]]:
    """The file of parts that the encoders of `turns` made, its notes, and the headers that came."""
    formats = {"x": VideoFormat(STAGE, encoder=Software()), "p": VideoFormat(STAGE, encoder=Plain())}
    assembler = formats["x"].assemble(folder / "a", media)
    head = np.frombuffer(write_head(container, [], Tags()), np.uint8)
    assembler.add_tracks(Fragment(key=Key(job=JOB, segment=0), media=media, container=container), {"head": head})
    headers = set()
    for number, turn in enumerate(turns):
        rows = slice(number * PER_PART, (number + 1) * PER_PART)
        part = make_part(media, {name: plane[rows] for name, plane in planes.items()}, range(rows.start, rows.stop))
        made = formats[turn].encode(part)
        headers.add(made.arrays["header"].tobytes())
        assembler.add(part.meta, made.arrays, made.facts)
    return assembler.close()[0], assembler.notes, headers


@pytest.mark.parametrize("turns", ["xxppxx", "pxxpxp", "xpxpxp", "ppppxx"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_file_of_two_encoders_shows_every_picture_from_anywhere(tmp_path: Path, turns: str, container: str) -> None:
    planes = planes_of(COUNT)
    path, notes, headers = joined(tmp_path, VIDEO, planes, turns, {"mkv": "matroska"}.get(container, container))
    assert path.suffix == f".{container}"
    assert len(headers) == 2
    second = next(number for number, turn in enumerate(turns) if turn != turns[0])
    assert f"not all of it is from one encoder, first at {second * PER_PART / 25:.3f} s" in notes
    assert not any("size" in note for note in notes)
    with av.open(path) as opened:
        shown = list(opened.decode(video=0))
    assert [round(frame.time * 25) for frame in shown] == list(range(COUNT))
    for row, frame in enumerate(shown):
        for number in range(3):
            assert psnr(plane_of(frame, number), planes[f"plane{number}"][row]) > 32
    with av.open(path) as opened:  # one decoder for all, which remembers the parameter sets of where it was before
        stream = opened.streams.video[0]
        for row in random.Random(turns).sample(range(COUNT), COUNT):
            opened.seek(round(row / 25 / stream.time_base), stream=stream)
            frame = next(frame for frame in opened.decode(stream) if round(frame.time * 25) == row)
            assert all((plane_of(frame, number) == plane_of(shown[row], number)).all() for number in range(3))


def test_a_change_of_size_is_another_note(tmp_path: Path) -> None:
    small, large = planes_of(PER_PART), planes_of(PER_PART, 96, 128)
    format_ = VideoFormat(STAGE, encoder=Plain())
    assembler = format_.assemble(tmp_path / "a", VIDEO)
    for number, planes in enumerate((small, large, large, small)):
        part = make_part(VIDEO, planes, range(number * PER_PART, (number + 1) * PER_PART))
        made = format_.encode(part)
        assembler.add(part.meta, made.arrays, made.facts)
    (path,) = assembler.close()
    assert assembler.notes == ["the picture changes size, first at 0.240 s"]
    with av.open(path) as opened:
        stream = opened.streams.video[0]
        for row in (8, 2, 15, 20, 3, 14):
            opened.seek(round(row / 25 / stream.time_base), stream=stream)
            frame = next(frame for frame in opened.decode(stream) if round(frame.time * 25) == row)
            wanted = (small, large, large, small)[row // PER_PART]["plane0"][row % PER_PART]
            assert psnr(plane_of(frame, 0), wanted) > 36
