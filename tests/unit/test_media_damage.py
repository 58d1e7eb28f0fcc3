"""Files that were changed at random: whatever is left of them is counted, and equal however they are cut."""

import random
from pathlib import Path

import av
import pytest

from engines.media.ebml import declared_length
from engines.media.split import Splitter
from schemas.errors import MediaError, RigflowError
from schemas.pipeline import PipelineSpec
from tests.clips import Clip, generated, make_clip
from tests.damage import SMALL, changed
from tests.unit.media_passes import Windows, decoded, in_segments, joined, pipeline, segments_of
from tests.unit.plain import Kind, write

END_OF_SEQUENCE = b"\0\0\0\1\x0a"  # of H.264: a packet of it gives no frame and no error
FRAMES, SAMPLED = pipeline(), pipeline(fps=5)
WARM, WARM_SAMPLED = pipeline(warm_up=6), pipeline(fps=5, frames=2, warm_up=3)


def outcome(data: bytes, spec: PipelineSpec, segment_s: float) -> tuple[int, int, Windows] | None:
    """Frames, lost ones and windows; None where the file is refused."""
    try:
        media, segments = segments_of(data, spec, segment_s)
        parts = decoded(media, segments, spec)
    except RigflowError:
        return None
    frames, lost = sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)
    with Splitter(data, spec.grid, segment_s) as splitter:
        assert frames + lost == splitter.surveyed.packets.shown.sum()
    assert all(part.meta.frames >= 0 for part in parts)
    return frames, lost, joined(parts)


def check(seed: int, count: int) -> tuple[int, int, int, int]:
    """How many results were whole, damaged and refused, and how many had other pictures when cut otherwise.

    A decoder that does not notice damage may carry it over a keyframe, which a cut ends.
    """
    whole = damaged = refused = differ = 0
    for number in range(count):
        _, data = changed(random.Random(seed * 1_000_000 + number))
        for spec in (FRAMES, SAMPLED, WARM, WARM_SAMPLED):
            one, some, many = (outcome(data, spec, segment_s) for segment_s in (3600, 0.9, 0.001))
            reported = [each and (each[0], each[1], each[2].pts) for each in (one, some, many)]
            assert reported[0] == reported[1] == reported[2], (seed, number, spec.grid)
            differ += not one == some == many
            refused += one is None
            whole += one is not None and not one[1]
            damaged += one is not None and one[1] > 0
    return whole, damaged, refused, differ


def test_what_is_left_of_changed_files_is_counted_and_equal_however_cut() -> None:
    whole, damaged, refused, differ = check(1, 24)
    assert not differ
    assert damaged > 5
    assert whole > 5
    assert refused


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_changed_files(seed: int) -> None:
    found = check(10 + seed, 100)
    print("\nwhole, damaged, refused, with other pictures when cut otherwise:", found)
    assert found[3] <= 4


def test_frames_that_take_times_by_rank_keep_them_behind_a_run_without_frames() -> None:
    """No frame comes of the first run: those of the second must not take its times before the loss is noticed.

    The clip is longer than two parts: the first part would be sent before its end tells how many frames are missing.
    """
    clip = generated(Clip(size=(64, 80), container="avi", frames=100))
    data = bytearray(clip.read_bytes())
    with av.open(clip) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        run = [packet.is_keyframe for packet in packets].index(True, 1)
    for packet in packets[:run]:
        at = packet.pos + 8  # behind the chunk's header
        data[at : at + packet.size] = END_OF_SEQUENCE.ljust(packet.size, b"\0")
    one, many = (outcome(bytes(data), FRAMES, segment_s) for segment_s in (3600, 0.001))
    assert one is not None
    assert (one[:2], one) == ((100 - run, run), many)
    with Splitter(bytes(data), FRAMES.grid, 3600) as splitter:
        assert one[2].pts == splitter.surveyed.packets.pts.tolist()[run:]


@pytest.mark.parametrize(
    ("hurt", "where"),
    [
        (range(4, 7), "3 frames are damaged or missing, between 0.16 and 0.24 s"),
        (range(6, 7), "1 frame is damaged or missing, at 0.24 s"),
    ],
)
def test_a_note_says_in_which_seconds_frames_are_lost(tmp_path: Path, hurt: range, where: str) -> None:
    path = make_clip(tmp_path, Clip(codec="mpeg4", frames=12, gop=1, b_frames=0, size=(96, 160)))
    data = bytearray(path.read_bytes())
    with av.open(path) as film:
        packets = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.size]
    for at, size in (packets[number] for number in hurt):
        data[at + size // 3 : at + size] = bytes(size - size // 3)
    media, segments = segments_of(bytes(data), FRAMES, 3600)
    last = decoded(media, segments, FRAMES)[-1]
    assert last.meta.lost == len(hurt)
    assert [note.partition(": ")[2] for note in last.meta.notes] == [where]


def test_a_keyframe_that_gives_no_picture_is_noticed_however_cut(tmp_path: Path) -> None:
    """18 packets are missing between two keyframes of open GOPs: of the second one no picture comes."""
    path = tmp_path / "gap.mkv"
    clip = generated(Clip(size=(64, 80), open_gop=True, container="mkv", b_frames=3))
    with av.open(clip) as source, av.open(path, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        packets = [packet for packet in source.demux(stream) if packet.size]
        keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
        for packet in (*packets[: keys[2] + 1], *packets[keys[4] :]):
            packet.stream = copy
            out.mux(packet)
    one, some, many = (outcome(path.read_bytes(), SAMPLED, segment_s) for segment_s in (3600, 0.9, 0.001))
    assert one == some == many


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("h264", "mkv"),
        ("h264", "mp4"),
        ("h264", "ts"),
        ("hevc", "mkv"),
        ("hevc", "mp4"),
        ("vp9", "mkv"),
        ("vp9", "mp4"),
    ],
)
def test_a_start_without_a_keyframe_is_counted_and_noted(codec: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / f"headless.{container}"
    with av.open(generated(Clip(codec=codec, container="mkv", b_frames=0))) as source, av.open(path, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        for packet in [packet for packet in source.demux(stream) if packet.size][1:]:
            packet.dts, packet.stream = packet.pts, copy
            out.mux(packet)
    for spec in (FRAMES, SAMPLED):
        for segment_s in (0.001, 3600):
            _, parts = in_segments(path, spec, segment_s)
            assert (sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)) == (40, 9)
            notes = [note for part in parts for note in part.meta.notes]
            assert "the first 9 frames cannot be decoded: no keyframe is before them" in notes


@pytest.mark.parametrize("clip", [Clip(container="mkv", frames=100), Clip(codec="vp9", container="webm", frames=100)])
def test_a_truncated_matroska_file_is_noted(clip: Clip) -> None:
    data = generated(clip).read_bytes()
    with Splitter(data[: len(data) // 2], FRAMES.grid, 1) as splitter:
        assert any("of the 4.0 s that its header says" in note for note in splitter.surveyed.notes)
    with Splitter(data[: len(data) * 9 // 10], FRAMES.grid, 1) as splitter:
        assert any("of the 4.0 s that its header says" in note for note in splitter.surveyed.notes)
    for whole in (data, data + bytes(100)):
        with Splitter(whole, FRAMES.grid, 1) as splitter:
            assert not splitter.surveyed.notes


def test_a_matroska_file_that_begins_late_is_whole(tmp_path: Path) -> None:
    """FFmpeg counts its duration from zero."""
    path = tmp_path / "late.mkv"
    with av.open(generated(Clip(container="avi", b_frames=0))) as given, av.open(path, "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.pts is not None:
                packet.pts = packet.dts = packet.pts + 250_000
                packet.stream = copy
                out.mux(packet)
    with Splitter(path, FRAMES.grid, 1) as splitter:
        assert not splitter.surveyed.notes
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Splitter(path, FRAMES.grid, 1) as splitter:
        assert any("of the 2502.0 s that its header says" in note for note in splitter.surveyed.notes)


def test_a_matroska_file_that_does_not_tell_its_length_is_not_called_truncated() -> None:
    data = generated(Clip(container="mkv")).read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    live = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]
    assert declared_length(data[:512]) == len(data)
    assert declared_length(live[:512]) is declared_length(b"\x1a\x45\xdf\xa3") is declared_length(b"") is None
    with Splitter(live, FRAMES.grid, 1) as splitter:
        assert not splitter.surveyed.notes


def test_the_alpha_of_a_webm_that_no_decoder_gives_is_noted(tmp_path: Path) -> None:
    clip, path = generated(Clip(codec="vp9", container="webm")), tmp_path / "alpha.webm"
    with av.open(path, "w") as out:
        stream = out.add_stream("libvpx-vp9", rate=25, options={"auto-alt-ref": "0", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(64, 48, "yuva420p")))
        out.mux(stream.encode(None))
    for made, notes in ((clip, ()), (path, ("its alpha channel is left out",))):
        with Splitter(made, FRAMES.grid, 1) as splitter:
            assert splitter.surveyed.notes == notes


def test_hidden_pictures_are_no_frames(tmp_path: Path) -> None:
    """VP8 with pictures that only others refer to, at a variable frame rate: they have the pts of shown ones."""
    path = tmp_path / "hidden.webm"
    clip = write(tmp_path, Kind("libvpx", "webm", "yuv420p", frozenset(("vfr",))))
    assert clip is not None
    with av.open(clip) as source, av.open(path, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        before = b""
        for packet in [packet for packet in source.demux(stream) if packet.size]:
            if before and not packet.is_keyframe:
                hidden = av.Packet(bytes([before[0] & ~0x10]) + before[1:])
                hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
                hidden.stream = copy
                out.mux(hidden)
            before = b"" if packet.is_keyframe else bytes(packet)
            packet.stream = copy
            out.mux(packet)
    with av.open(path) as container:
        packets = sum(bool(packet.size) for packet in container.demux(video=0))
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        times = [frame.pts for frame in container.decode(video=0)]
    assert packets > len(times) == 24
    for segment_s in (0.001, 3600):
        windows, parts = in_segments(path, FRAMES, segment_s)
        assert windows.pts == times
        assert (sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)) == (len(times), 0)


def test_a_file_without_packets_is_refused() -> None:
    with pytest.raises(MediaError), Splitter(generated(SMALL[0]).read_bytes()[:400], FRAMES.grid, 1):
        pass


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_a_film_of_which_nothing_is_whole_is_refused_in_true_words(codec: str, container: str) -> None:
    path = generated(Clip(codec=codec, container=container, size=(64, 80)))
    data = bytearray(path.read_bytes())
    with av.open(path) as source:
        for packet in source.demux(video=0):
            if packet.size:
                at = data.index(bytes(packet)) + 4  # behind a NAL unit's length
                data[at : at + packet.size - 4] = bytes(packet.size - 4)
    for spec in (FRAMES, SAMPLED):
        with pytest.raises(MediaError, match=r"no frame of its .* video can be decoded"), Splitter(data, spec.grid, 1):
            pass
