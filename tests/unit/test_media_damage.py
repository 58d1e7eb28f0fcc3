"""Files that were changed at random: whatever is left of them is counted, and equal however they are cut."""

import random
from pathlib import Path

import av
import pytest

from engines.media.ebml import declared_length
from engines.media.split import Splitter
from schemas.errors import MediaError, RigflowError
from schemas.pipeline import PipelineSpec
from tests.clips import Clip, generated
from tests.unit.media_passes import Windows, decoded, in_segments, joined, pipeline, segments_of
from tests.unit.plain import Kind, write

CLIPS = [
    Clip(size=(64, 80)),
    Clip(size=(64, 80), open_gop=True, container="mkv", b_frames=3),
    Clip(size=(64, 80), container="ts"),
    Clip(size=(64, 80), container="avi"),
    Clip(size=(64, 80), container="h264"),
    Clip(codec="hevc", size=(64, 80), container="mkv"),
    Clip(codec="vp9", container="webm", size=(64, 80)),
    Clip(codec="mpeg4", container="avi", size=(64, 80)),
    Clip(codec="mpeg4", container="ts", size=(64, 80)),
]
FRAMES, SAMPLED = pipeline(), pipeline(fps=5)


def changed(dice: random.Random) -> bytes:
    """A file with flipped bits, a hole, a missing end, a piece of another file, or a header that is not true."""
    data = bytearray(generated(dice.choice(CLIPS)).read_bytes())
    kind = dice.choice(("flip", "hole", "truncate", "splice", "header"))
    at = dice.randrange(len(data))
    if kind == "flip":
        for _ in range(dice.randint(1, 20)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == "hole":
        length = min(dice.randint(1, 600), len(data) - at)
        data[at : at + length] = bytes(length)
    elif kind == "truncate":
        del data[max(at, len(data) // 4) :]
    elif kind == "splice":
        other = generated(dice.choice(CLIPS)).read_bytes()
        begin = dice.randrange(len(other))
        data[at : at + dice.randint(0, 3000)] = other[begin : begin + dice.randint(100, 20_000)]
    else:
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(min(600, len(data)))] = dice.randrange(256)
    return bytes(data)


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
        data = changed(random.Random(seed * 1_000_000 + number))
        for spec in (FRAMES, SAMPLED):
            one, some, many = (outcome(data, spec, segment_s) for segment_s in (3600, 0.9, 0.001))
            reported = [each and (each[0], each[1], each[2].pts) for each in (one, some, many)]
            assert reported[0] == reported[1] == reported[2], (seed, number, spec.grid)
            differ += not one == some == many
            refused += one is None
            whole += one is not None and not one[1]
            damaged += one is not None and one[1] > 0
    return whole, damaged, refused, differ


def test_what_is_left_of_changed_files_is_counted_and_equal_however_cut() -> None:
    whole, damaged, refused, differ = check(1, 40)
    assert not differ
    assert damaged > 10
    assert whole > 10
    assert refused


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_changed_files(seed: int) -> None:
    found = check(10 + seed, 100)
    print("\nwhole, damaged, refused, with other pictures when cut otherwise:", found)
    assert found[3] <= 4


def test_frames_that_take_times_by_rank_keep_them_behind_a_run_without_frames() -> None:
    """No frame comes of the first run: those of the second must not take its times before the loss is noticed."""
    clip = generated(Clip(size=(64, 80), container="avi"))
    data = bytearray(clip.read_bytes())
    with av.open(clip) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        run = [packet.is_keyframe for packet in packets].index(True, 1)
    for packet in packets[:run]:
        at = packet.pos + 8  # behind the chunk's header
        data[at : at + packet.size] = bytes(packet.size)
    one, many = (outcome(bytes(data), FRAMES, segment_s) for segment_s in (3600, 0.001))
    assert one is not None
    assert (one[:2], one) == ((50 - run, run), many)
    with Splitter(bytes(data), FRAMES.grid, 3600) as splitter:
        assert one[2].pts == splitter.surveyed.packets.pts.tolist()[run:]


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
            assert "the first 9 frames can not be decoded: no keyframe is before them" in notes


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
    with pytest.raises(MediaError), Splitter(generated(CLIPS[0]).read_bytes()[:400], FRAMES.grid, 1):
        pass
