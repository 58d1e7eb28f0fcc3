"""However a media is made and however it is cut, its windows are those of one pass."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.media.cuts import Packets, plan_cuts
from engines.media.windows import Slice, Span, every_frame, last_before, needed_ticks, slices
from schemas.grid import Clock, Grid, frame_at
from tests.clips import Clip, generated
from tests.unit.media_passes import Windows, in_segments, joined, pipeline, segments_of, sequential, warmed_up

CONTAINERS = {
    "h264": ["mp4", "mkv", "ts", "mov"],
    "hevc": ["mp4", "mkv", "ts"],
    "mpeg4": ["mp4", "mkv", "avi", "ts"],
    "vp9": ["mp4", "webm"],
}
SIDES = st.integers(32, 44).map(lambda half: 2 * half)  # below 64 x265 writes past its buffers
SHORTEST = {"hevc": 5}  # of fewer than its B-frames x265 gives packets with random times, which mp4 refuses
CLIPS = st.sampled_from(sorted(CONTAINERS)).flatmap(
    lambda codec: st.builds(
        Clip,
        codec=st.just(codec),
        container=st.sampled_from(CONTAINERS[codec]),
        frames=st.integers(SHORTEST.get(codec, 1), 40),
        size=st.tuples(SIDES, SIDES),
        rate=st.sampled_from([10, 25, 30, 50]),
        gop=st.integers(4, 15),
        b_frames=st.integers(0, 3),
        open_gop=st.booleans(),
        vfr=st.booleans() if codec != "mpeg4" else st.just(False),
        seed=st.integers(0, 3),
    )
)
WARM_UPS = st.one_of(st.just(0), st.integers(1, 12))
GRIDS = st.one_of(
    st.builds(Grid, st.none(), st.integers(1, 4), st.just(1), WARM_UPS),
    st.builds(
        Grid,
        st.sampled_from([Fraction(5), Fraction("12.5"), Fraction(3), Fraction(60), Fraction(1, 2)]),
        st.integers(1, 6),
        st.integers(1, 6),
        WARM_UPS,
    ),
)


@settings(max_examples=40)
@given(clip=CLIPS, grid=GRIDS, segment_s=st.sampled_from([0.01, 0.15, 0.4, 1.0, 60.0]))
def test_generated_media(clip: Clip, grid: Grid, segment_s: float) -> None:
    path = generated(clip)
    spec = pipeline(
        fps=None if grid.fps is None else float(grid.fps), frames=grid.frames, stride=grid.stride, warm_up=grid.warm_up
    )
    expected, frames = sequential(path, spec)
    windows, parts = in_segments(path, spec, segment_s)
    assert windows == expected
    for part in parts:
        if part.meta.key.part == 0 and (begin := part.meta.key.segment):
            _check_warm_up(
                warmed_up(parts, begin), joined([p for p in parts if p.meta.key.segment == begin]), expected, grid
            )
    assert sum(part.meta.frames for part in parts) == frames
    assert not any(part.meta.lost for part in parts)
    assert len({part.meta.key.segment for part in parts}) == len(segments_of(path, spec, segment_s)[1])


def _check_warm_up(found: Windows, own: Windows, expected: Windows, grid: Grid) -> None:
    """A segment with windows has the last ones before them, as many as its warm-up wants and the media has."""
    at = expected.pts.index(own.pts[0]) if own.pts else 0
    before = slice(max(0, at - grid.warm_up), at)
    assert found == Windows(expected.pts[before], expected.seen[before])


TIMES = st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True).map(sorted)


@given(times=TIMES, grid=GRIDS, borders=st.lists(st.integers(1, 400), max_size=5), limit=st.integers(1, 5))
def test_windows_of_any_times_and_any_cuts(times: list[int], grid: Grid, borders: list[int], limit: int) -> None:
    """Frames are their own pts; a segment begins at a frame, as keyframes do."""
    clock = Clock(Fraction(1, 100), times[0])
    starts = sorted({times[0], *(border for border in borders if border in times)})
    spans = [Span(clock, a, b, grid.warm_up_pts(clock, a, times)) for a, b in pairwise([*starts, None])]
    expected = list(zip(*_expected(times, grid, clock), strict=True))
    windows = []
    for span in spans:
        found = list(_slices(times, grid, span, limit))
        assert all(len(segment_data.pts) <= limit for segment_data in found)
        seen = [[each.rows[row] for row in look] for each in found for look in each.index.tolist()]
        both = list(zip([pts for each in found for pts in each.pts], seen, strict=True))
        own = [window for window in both if window[0] >= span.start]
        at = len(windows)
        assert both == (expected[max(0, at - grid.warm_up) : at] if own else []) + own
        windows += own
    assert windows == expected


@given(times=TIMES, grid=GRIDS.filter(lambda grid: grid.fps is not None))
def test_frames_that_are_due_are_all_that_is_needed(times: list[int], grid: Grid) -> None:
    """With everything left out that no tick is due to see, the windows are the same."""
    clock = Clock(Fraction(1, 100), times[0])
    ticks = needed_ticks(grid, grid.windows_until(clock, times[0], times[-1]))
    due = {tick: times[frame_at(times, grid.tick_pts(clock, tick))] for tick in ticks}
    frames = ((pts, pts) for pts in times if pts in due.values())
    span = Span(clock, times[0], None, times[0])
    found = list(slices(last_before(frames, grid, span, times[-1]), grid, 3, lambda pts: pts))
    seen = [[segment_data.rows[row] for row in look] for segment_data in found for look in segment_data.index.tolist()]
    assert ([pts for segment_data in found for pts in segment_data.pts], seen) == _expected(times, grid, clock)


@given(
    order=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    keys=st.sets(st.integers(0, 59)),
    grid=GRIDS,
    segment_s=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_cuts_hold_what_their_segments_look_at(order: list[int], keys: set[int], grid: Grid, segment_s: float) -> None:
    """Packets a few places out of order, keyframes anywhere."""
    ranks = np.argsort(np.argsort([10 * place + 12 * shift for place, shift in enumerate(order)], kind="stable"))
    pts = ranks.astype(np.int64) * 4
    is_key = np.array([place in keys for place in range(len(pts))])
    packets = Packets(pts, is_key, np.ones(len(pts), bool), Fraction(1, 100))
    clock = Clock(Fraction(1, 100), 0)
    cuts = plan_cuts(packets, grid, clock, segment_s)
    assert [cut.end for cut in cuts[:-1]] == [cut.start for cut in cuts[1:]]
    assert (cuts[0].start, cuts[0].first, cuts[-1].end, cuts[-1].stop) == (0, 0, None, len(pts))
    for cut in cuts:
        carried = set(pts[cut.first : cut.stop].tolist())
        owned = [at for at in pts.tolist() if at >= cut.start and (cut.end is None or at < cut.end)]
        assert carried.issuperset(owned)
        if cut.first:
            assert is_key[cut.first]
            since = grid.warm_up_pts(clock, cut.start, sorted(pts.tolist()))
            assert pts[: cut.first].max() < pts[cut.first] <= since
            assert carried.issuperset(at for at in pts.tolist() if since <= at < cut.start)
            assert grid.warm_up or pts[cut.first] == cut.start
        if cut.end is not None:
            assert cut.end - cut.start >= segment_s * 100
            assert carried.issuperset(_looked_at(sorted(pts.tolist()), grid, clock, owned, cut.start, cut.end))


def _slices(times: list[int], grid: Grid, span: Span, limit: int) -> Iterator[Slice[int]]:
    frames = ((pts, pts) for pts in times if pts >= span.since)
    ticks = every_frame(frames, grid, span) if grid.fps is None else last_before(frames, grid, span, times[-1])
    return slices(ticks, grid, limit, lambda pts: pts)


def _expected(times: list[int], grid: Grid, clock: Clock) -> tuple[list[int], list[list[int]]]:
    """Pts and pictures of all windows, by the words of `schemas.grid`."""
    if grid.fps is None:
        last = len(times) - 1
        return times, [[times[min(at + step, last)] for step in range(grid.frames)] for at in range(len(times))]
    pts, seen = [], []
    tick = 0
    while (at := clock.origin + tick / grid.fps / clock.time_base) <= times[-1]:
        due = [clock.origin + (tick + step) / grid.fps / clock.time_base for step in range(grid.frames)]
        pts.append(int(at // 1))
        seen.append([max(each for each in times if each <= time) for time in due])
        tick += grid.stride
    return pts, seen


def _looked_at(times: list[int], grid: Grid, clock: Clock, owned: list[int], start: int, end: int) -> list[int]:
    """Frames that the windows of `[start, end)` look at."""
    if grid.fps is None:
        beyond = [at for at in times if at >= end][: grid.frames - 1]
        return owned + beyond
    ticks = needed_ticks(grid, grid.windows_in(clock, start, end))
    return [times[frame_at(times, grid.tick_pts(clock, tick))] for tick in ticks]
