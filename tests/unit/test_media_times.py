"""When frames are shown, where a container says it badly: repaired where it is odd, and noted."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.media.split import Splitter
from engines.media.times import UNKNOWN, Settled, Stamps, Times, frame_rate, settle, unwrapped
from schemas.grid import Grid
from tests.clips import Clip, generated
from tests.unit.media_passes import in_segments, pipeline
from tests.unit.plain import Kind, write, written

STEADY: list[int] = [40 * number for number in range(60)]
WITH_B = [40 * (3 * group + place) for group in range(20) for place in (0, 3, 1, 2) if (group, place) != (19, 3)]
WITH_B = sorted(set(WITH_B), key=WITH_B.index)


def settled(pts: Sequence[int | None], dts: Sequence[int | None] = (), **changes: Any) -> Settled:
    stamps: dict[str, Any] = {
        "shown": np.ones(len(pts), bool),
        "depth": 0,
        "may_reorder": True,
        "decoding_order": False,
    }
    stamps |= {"time_base": Fraction(1, 1000), "step": Fraction(40)}
    return settle(Stamps(pts=stated(pts), dts=stated(dts or [None] * len(pts)), **(stamps | changes)))


def stated(times: Sequence[int | None]) -> Times:
    """Times as a survey has them."""
    return np.array([UNKNOWN if time is None else time for time in times], np.int64)


def put(times: Sequence[int], at: int, value: int | None) -> list[int | None]:
    return [*times[:at], value, *times[at + 1 :]]


@pytest.mark.parametrize(("times", "depth"), [(STEADY, 0), (WITH_B, 1), ([time**2 for time in range(60)], 0)])
def test_times_that_rise_stay_as_they_are(times: list[int], depth: int) -> None:
    found = settled(times, depth=depth)
    assert found.pts.tolist() == times
    assert (found.by_rank, found.notes) == (False, ())


@pytest.mark.parametrize("container", ["avi", "asf"])
@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg4", 2), ("mpeg4", 0), ("libx264", 0)])
@pytest.mark.parametrize("count", [58, 59, 60, 61])
def test_the_last_frame_of_a_container_without_pts_has_a_time_of_its_own(
    tmp_path: Path, container: str, codec: str, b_frames: int, count: int
) -> None:
    path = tmp_path / f"film.{container}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"bf": str(b_frames)})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)  # so that packets have no duration
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 3 * number, np.uint8))
            frame.pts, frame.time_base = 40 * number, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with Splitter(path, Grid(), 1.0) as splitter:
        surveyed = splitter.surveyed
    gaps = np.diff(np.sort(surveyed.packets.pts)) * surveyed.packets.time_base
    assert gaps.tolist() == [Fraction(1, 25)] * (count - 1)
    assert (surveyed.end - surveyed.origin) * surveyed.packets.time_base == Fraction(count, 25)
    assert surveyed.notes == ()


@pytest.mark.parametrize("value", [STEADY[29], -20_000, 10**9, None])
@pytest.mark.parametrize("hole", [0, 5000])
def test_one_odd_packet_moves_alone(value: int | None, hole: int) -> None:
    times = [time + (hole if number > 40 else 0) for number, time in enumerate(STEADY)]
    found = settled(put(times, 30, value))
    right = np.array(times)
    assert (found.pts != right).sum() <= 1
    assert right[29] < found.pts[30] < right[31]
    assert len(found.notes) == 1


@pytest.mark.parametrize("value", [-50_000, 10**8, None])
def test_one_odd_packet_among_b_frames(value: int | None) -> None:
    found = settled(put(WITH_B, 31, value), depth=1)
    assert (found.pts != np.array(WITH_B)).sum() <= 2
    assert found.pts.max() == max(WITH_B)
    assert len(set(found.pts.tolist())) == len(WITH_B)


@pytest.mark.parametrize("leap", [-60 * 40, 10_000_000])
@pytest.mark.parametrize(("times", "depth"), [(STEADY, 0), (WITH_B, 1)])
def test_what_starts_anew_goes_on(times: list[int], depth: int, leap: int) -> None:
    second = [time + 60 * 40 + leap for time in times]
    found = settled(times + second, depth=depth)
    assert found.pts.tolist() == [*times, *(time + max(times) + 40 for time in times)]
    assert found.notes == ("the times start anew or leap 1 times: what follows was moved to go on",)


def test_a_clock_that_starts_over_among_b_frames_goes_on() -> None:
    rising = [(1 << 33) - 90_000 + 3600 * (time // 40) for time in WITH_B]
    wrapped: list[int | None] = [time % (1 << 33) for time in rising]
    assert max(wrapped[:20], key=lambda time: time or 0) > max(wrapped[-20:], key=lambda time: time or 0)
    assert unwrapped(stated(wrapped), 33).tolist() == rising
    assert unwrapped(stated([None, *wrapped, None]), 33).tolist() == [UNKNOWN, *rising, UNKNOWN]
    assert unwrapped(stated([]), 33).tolist() == []
    assert settled(unwrapped(stated(wrapped), 33).tolist(), depth=1).notes == ()


def test_times_that_are_all_the_same_are_no_times() -> None:
    found = settled([0] * 60, [-1, *[0] * 59], depth=1)
    assert (np.diff(found.pts) > 0).all()
    assert not found.known


def test_a_hole_of_some_minutes_is_kept() -> None:
    times = [*STEADY, *(time + 500_000 for time in STEADY)]
    assert settled(times).pts.tolist() == times


@pytest.mark.parametrize("times", [[0] * 60, [None] * 60])
def test_no_times_are_numbers_at_the_frame_rate(times: list[int | None]) -> None:
    found = settled(times, depth=2)
    assert found.pts.tolist() == STEADY
    assert (found.by_rank, found.known) == (True, False)


def test_times_of_decoding_are_taken_by_rank() -> None:
    found = settled([time + 40 for time in STEADY], STEADY, depth=2, decoding_order=True)
    assert (found.pts.tolist(), found.by_rank) == (STEADY, True)
    uneven = [time**2 for time in range(60)]  # the decoder holds two frames back: so do the times of decoding
    late = settled(uneven, [-2, -1, *uneven[:-2]], depth=2, decoding_order=True)
    assert (np.diff(late.pts)[:-2].tolist(), late.by_rank) == (np.diff(uneven)[:-2].tolist(), True)
    assert not settled(WITH_B, STEADY[: len(WITH_B)], depth=1, decoding_order=True).by_rank, "FFmpeg worked them out"


def test_a_hidden_packet_has_the_time_of_a_shown_one() -> None:
    times = [*STEADY[:30], STEADY[30], *STEADY[30:]]
    shown = np.ones(61, bool)
    shown[30] = False
    found = settled(times, shown=shown)
    assert (found.pts.tolist(), found.notes) == (times, ())


def test_a_rate_of_milliseconds_is_no_rate() -> None:
    assert frame_rate(Fraction(1000), Fraction(24)) == 24
    assert frame_rate(Fraction(100), Fraction(25), seen=Fraction(24)) == 25
    assert frame_rate(None, Fraction(0)) == 25


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
@pytest.mark.parametrize("overlap", [1, 2, 5, 9, 20])
def test_joined_streams_whose_ends_overlap_lose_nothing(tmp_path: Path, codec: str, overlap: int) -> None:
    """The second recording begins `overlap` frames before the end of the first one."""
    first, second = (generated(Clip(codec=codec, container="ts", size=(64, 80), seed=seed)) for seed in (0, 1))
    late = tmp_path / "late.ts"
    with av.open(second) as source, av.open(late, "w", format="mpegts") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        for packet in source.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts += (50 - overlap) * 3600
                packet.dts += (50 - overlap) * 3600
                packet.stream = copy
                out.mux(packet)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + late.read_bytes())
    for segment_s in (0.5, 3600):
        windows, parts = in_segments(joined, pipeline(), segment_s)
        assert (sum(part.meta.frames for part in parts), sum(part.meta.lost for part in parts)) == (100, 0)
        steps = np.diff(windows.pts)
        assert steps.min() > 0
        notes = [note for part in parts for note in part.meta.notes]
        assert "the times start anew or leap 1 times: what follows was moved to go on" in notes


def test_times_of_frames_stay_where_few_decoding_times_are_known() -> None:
    times = [time + time % 7 for time in WITH_B]
    few = [number * 40 if number % 5 == 0 else None for number in range(len(times))]
    found = settled(times, few, depth=1)
    assert (found.pts.tolist(), found.by_rank, found.notes) == (times, False, ())


@pytest.mark.parametrize("traits", [("vfr",), ("vfr", "b-frames"), (), ("b-frames",)], ids=str)
def test_times_that_few_packets_have_are_kept_and_the_others_spread_between_them(
    traits: tuple[str, ...], tmp_path: Path
) -> None:
    """MPEG-PS has a time for each 2 kB of H.264: the film lasts as long as it shall, and no frame is far off."""
    kind = Kind("libx264", "mpg", "yuv420p", frozenset(traits))
    path = write(tmp_path, kind, 60)
    assert path is not None
    with av.open(path) as container:
        stored = [packet.dts for packet in container.demux(video=0) if packet.size]
    assert 2 <= sum(dts is not None for dts in stored) < 30
    right = np.array([written(kind, number) for number in range(60)]) / 25
    for segment_s in (0.2, 3600):
        windows, parts = in_segments(path, pipeline(), segment_s)
        assert sum(part.meta.frames for part in parts) == 60
        words = "times of a few packets only" if "vfr" in traits else "frames are numbered at its frame rate"
        assert any(words in note for part in parts for note in part.meta.notes)
        found = (np.array(windows.pts) - windows.pts[0]) / 90_000
        if "b-frames" not in traits:
            known = [number for number, dts in enumerate(stored) if dts is not None]
            assert found[known] == pytest.approx(right[known], abs=1e-4)
        assert np.abs(found - right).max() < (0.05 if "vfr" not in traits else 0.25 * right[-1])
