"""Each error that a user can cause with media is one line that says what happened and what to do."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from engines.media import places
from engines.media.sniff import formats
from engines.media.source import open_picture, picture_stream
from engines.media.split import Splitter
from engines.media.survey import reorder_depth
from schemas.errors import ItemTooLarge, MediaError, RigflowError, UsageError
from tests.clips import Clip, generated, real_clip, still
from tests.kinds import kind_of
from tests.unit.media_passes import pipeline, segments_of


def error_of(source: Path | bytes) -> RigflowError:
    with pytest.raises(RigflowError) as caught:
        segments_of(source, pipeline(), 1)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_no_such_file(tmp_path: Path) -> None:
    error = error_of(tmp_path / "none.mp4")
    assert isinstance(error, UsageError)
    assert str(error) == f"{tmp_path}/none.mp4: no such file: check the path"


def test_a_directory(tmp_path: Path) -> None:
    error = error_of(tmp_path)
    assert isinstance(error, UsageError)
    assert str(error) == f"{tmp_path} is a directory: name the files in it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "permission denied" in str(error_of(path))


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert str(error_of(path)) == f"{path} is empty: copy or send it again"
    assert str(error_of(b"")) == "the media is empty: copy or send it again"
    with pytest.raises(MediaError, match="is empty"):
        kind_of(path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4"])
def test_not_media(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("these are words, and FFmpeg would make a picture of them\n" * 50)
    kinds = f"send video as mp4, mkv or webm, sound as wav, mp3 or flac, images as {formats()}"
    expected = f"{path} is no video, sound or picture that rigflow reads: {kinds}"
    assert str(error_of(path)) == expected
    assert isinstance(error_of(path.read_bytes()), MediaError)


def test_a_play_list_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{generated(Clip(container='ts'))}\n")
    assert "no video, sound or picture" in str(error_of(path))


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_an_mp4_without_its_index(tmp_path: Path, kept: float) -> None:
    data = real_clip("bikes").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * kept)])
    expected = f"{path} is a truncated mp4: its index is missing or cut short: copy or download it again"
    assert str(error_of(path)) == expected


def test_an_mp4_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    with av.open(generated(Clip())) as source, av.open(path, "w", options={"movflags": "faststart"}) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    error = error_of(path)
    assert "is truncated" in error.what
    assert "of 50 frames are missing" in error.what


def test_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(generated(Clip(sound="aac"))) as source, av.open(path, "w", format="mp4") as out:
        stream = source.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert str(error_of(path)) == f"{path} has no video stream: give a file with a picture"


def test_a_video_without_a_frame_that_decodes() -> None:
    data = bytearray(generated(Clip(codec="vp9", container="webm")).read_bytes())
    with av.open(generated(Clip(codec="vp9", container="webm"))) as container:
        for packet in [bytes(packet) for packet in container.demux(video=0) if packet.size]:
            at = data.index(packet)
            data[at : at + len(packet)] = bytes(len(packet))
    assert "no frame of its vp9 video can be decoded" in str(error_of(bytes(data)))


def test_what_can_not_be_cut_and_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_SEGMENT_BYTES", 1 << 10)
    for clip in (Clip(), Clip(container="h264")):
        error = error_of(generated(clip))
        assert isinstance(error, ItemTooLarge)
        assert "keyframe every few seconds" in error.hint


@pytest.mark.parametrize(
    ("data", "kind"),
    [(still("mjpeg"), "image"), (still("png"), "image"), (still("libwebp"), "image"), (b"RIFF....AVI LIST", "video")],
)
def test_the_kind_of_media_is_recognised_by_its_first_bytes(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "upload.bin"
    path.write_bytes(data)
    assert kind_of(data) == kind_of(path) == kind
    assert kind_of(memoryview(data)) == kind


def test_a_name_for_media_from_memory() -> None:
    with pytest.raises(MediaError, match="upload 7 is no video"), Splitter(b"?", pipeline().grid, 1, name="upload 7"):
        pass


def test_a_path_is_never_taken_for_an_address() -> None:
    assert isinstance(error_of(Path("http:/example.com/a.mp4")), UsageError)


def test_the_picture_alone_is_opened_without_decoding_where_the_header_has_all(tmp_path: Path) -> None:
    mp4, mkv = real_clip("bikes"), tmp_path / "bikes.mkv"
    with av.open(mp4) as given, av.open(mkv, "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    for path, decoded in ((mp4, False), (mkv, True)):
        with open_picture(path) as opened:
            stream = picture_stream(opened, "it")
            assert (stream.codec_context.pix_fmt is not None) is decoded
            assert sum(1 for _ in opened.decode(stream)) == 250
    with pytest.raises(UsageError, match="no such file"), open_picture(tmp_path / "none.mp4"):
        pass


@pytest.mark.parametrize(("pts", "depth"), [([], 0), ([0, 1, 2], 0), ([0, 3, 1, 2], 1), ([0, 8, 4, 2, 6], 2)])
def test_how_far_frames_are_reordered_is_found_by_their_times(pts: list[int], depth: int) -> None:
    assert reorder_depth(np.array(pts, np.int64)) == depth


def test_a_cover_picture_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(generated(Clip(sound="aac"))) as source, av.open(path, "w", format="mp4") as out:
        stream = source.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.Packet(still("mjpeg", (48, 64)))
        picture.stream, picture.pts, picture.dts = cover, 0, 0
        out.mux(picture)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert str(error_of(path)) == f"{path} has a cover picture and no video: extract the picture, or give a video"
