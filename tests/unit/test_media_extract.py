"""What failed comes out as files that other programs open."""

import io
from pathlib import Path

import av
import numpy as np

from engines.media.extract import files_of
from engines.media.split import Splitter
from engines.part import Part, encode_part
from engines.ragged import Ragged
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.messages import decode
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer
from tests.clips import Clip, make_clip, still

KEY = Key(job=JobRef(id="j", pipeline="p", revision="r"), segment=3)


def files(body: bytes) -> dict[str, Buffer]:
    message, buffers = decode(body)
    return files_of(message, buffers)


def test_a_segment_of_video_is_a_video(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=50, gop=10))
    with Splitter(clip, Grid(None), 0.3) as splitter:
        segment_data = next(splitter.segments())
    [(name, body)] = files(segment_data.segment(KEY).encode(segment_data.buffers)).items()
    assert name == "j-3.mkv"
    with av.open(io.BytesIO(body)) as video:
        assert sum(1 for _ in video.decode(video=0)) >= 10


def test_images_come_out_as_they_were_sent_each_under_its_own_name() -> None:
    sent = [still("png"), still("mjpeg")]
    segment = Segment(
        key=KEY, media=MediaInfo(kind="image", timed=False), items=(Item(name="a/x.png"), Item(name="b/x.png"))
    )
    found = files(segment.encode(sent))
    assert list(found) == ["0-x.png", "1-x.png"]
    assert [bytes(body) for body in found.values()] == sent


def test_a_part_is_its_arrays() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    part = Part(PartMeta(key=KEY.model_copy(update={"part": 7}), media=MediaInfo(kind="video")), {"pixels": pixels})
    [(name, body)] = files(encode_part(part)).items()
    assert name == "j-3-7.npz"
    with np.load(io.BytesIO(body)) as archive:
        np.testing.assert_array_equal(archive["pixels"], pixels)


def test_a_part_with_any_names_and_rows_of_any_length_is_its_arrays() -> None:
    boxes = Ragged.of([np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32)])
    arrays = {"file": np.arange(2), "../up": np.arange(2), "boxes": boxes}
    part = Part(PartMeta(key=KEY, media=MediaInfo(kind="video"), pts=(0, 1)), arrays)
    [(_, body)] = files(encode_part(part)).items()
    with np.load(io.BytesIO(body)) as archive:
        assert sorted(archive.files) == ["__up", "boxes", "boxes_offsets", "file"]
        assert archive["boxes_offsets"].tolist() == [0, 2, 2]
