"""The time grid keeps its word: exact ticks, and windows that belong to one segment each, however a media is cut."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.media.windows import needed_ticks, used_times
from schemas.grid import Clock, Grid, frame_at
from schemas.pipeline import parse_pipeline

CLOCKS = st.builds(
    Clock,
    st.sampled_from(
        [Fraction(1, 12800), Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 25)]
    ),
    st.integers(-(10**6), 10**12),
)
GRIDS = st.builds(
    Grid,
    st.sampled_from([Fraction(5), Fraction(1, 3), Fraction("29.97"), Fraction(1000), Fraction(7, 2)]),
    st.integers(1, 20),
    st.integers(1, 20),
)


@given(CLOCKS, GRIDS, st.integers(0, 10**6))
def test_a_tick_sees_what_is_not_after_it(clock: Clock, grid: Grid, tick: int) -> None:
    assert grid.fps is not None
    pts = grid.tick_pts(clock, tick)
    at_s = tick / grid.fps
    assert (pts - clock.origin) * clock.time_base <= at_s < (pts + 1 - clock.origin) * clock.time_base


@given(CLOCKS, GRIDS, st.lists(st.integers(0, 5000), min_size=2, max_size=8, unique=True).map(sorted))
def test_every_window_belongs_to_one_segment(clock: Clock, grid: Grid, borders: list[int]) -> None:
    borders = [clock.origin + border for border in borders]
    owned = [list(grid.windows_in(clock, a, b)) for a, b in pairwise(borders)]
    assert [w for windows in owned for w in windows] == list(grid.windows_in(clock, borders[0], borders[-1]))


@given(CLOCKS, GRIDS, st.integers(0, 5000), st.integers(1, 5000))
def test_windows_begin_inside_their_segment(clock: Clock, grid: Grid, offset: int, length: int) -> None:
    start, end = clock.origin + offset, clock.origin + offset + length
    assert grid.fps is not None
    owned = grid.windows_in(clock, start, end)
    before, *inside, after = (
        clock.origin + window * grid.stride / grid.fps / clock.time_base
        for window in (owned.start - 1, *owned[:1], *owned[-1:], owned.stop)
    )
    assert before < start
    assert all(start <= at < end for at in inside)
    assert after >= end


@given(CLOCKS, GRIDS, st.integers(0, 5000), st.integers(0, 5000))
def test_the_last_windows_begin_no_later_than_the_last_frame(
    clock: Clock, grid: Grid, offset: int, length: int
) -> None:
    start, last = clock.origin + offset, clock.origin + offset + length
    assert grid.fps is not None
    until = grid.windows_until(clock, start, last)
    *inside, after = (
        clock.origin + window * grid.stride / grid.fps / clock.time_base
        for window in (*until[:1], *until[-1:], until.stop)
    )
    assert all(start <= at <= last for at in inside)
    assert after > last


@given(CLOCKS, GRIDS, st.integers(0, 5000), st.integers(1, 5000))
def test_last_pts_covers_the_last_window(clock: Clock, grid: Grid, offset: int, length: int) -> None:
    start, end = clock.origin + offset, clock.origin + offset + length
    last = grid.last_pts(clock, start, end)
    assert last >= end - 1
    for window in grid.windows_in(clock, start, end)[-1:]:
        assert grid.tick_pts(clock, window * grid.stride + grid.frames - 1) <= last


TIMES = st.lists(st.integers(-50, 5000), min_size=1, max_size=40, unique=True).map(sorted)


@given(CLOCKS, GRIDS, TIMES, st.integers(-60, 5000), st.integers(0, 300), st.integers(0, 40))
def test_the_frames_that_ticks_use_are_found_frame_by_frame(
    clock: Clock, grid: Grid, times: list[int], since: int, first: int, count: int
) -> None:
    """The plain way looks at each tick, of which a message may state any number."""
    times, since, windows = [clock.origin + pts for pts in times], clock.origin + since, range(first, first + count)
    seen = (grid.tick_pts(clock, tick) for tick in needed_ticks(grid, windows))
    plain = sorted({times[frame_at(times, pts)] for pts in seen if pts >= since})
    assert used_times(times, grid, clock, windows, since) == plain


def test_a_message_that_states_very_many_windows_is_no_more_work() -> None:
    grid, clock = Grid(Fraction(7), 3, 2), Clock(Fraction(1, 1000), 0)
    assert used_times([0, 100, 500], grid, clock, range(10**15), 0) == [0, 100, 500]
    assert used_times([0, 100, 500], grid, clock, range(3, 10**15), 0) == [500]


def test_every_media_has_a_window() -> None:
    clock = Clock(Fraction(1, 25), 7)
    assert list(Grid(Fraction(1, 60), 5, 5).windows_until(clock, 7, 7)) == [0]


@pytest.mark.parametrize(("tick_pts", "row"), [(9, 0), (10, 0), (11, 0), (20, 1), (29, 1), (30, 2), (99, 2)])
def test_the_due_frame_is_the_last_one_not_after_the_tick(tick_pts: int, row: int) -> None:
    assert frame_at([10, 20, 30], tick_pts) == row


def test_a_grid_of_frames_has_no_times() -> None:
    with pytest.raises(ValueError, match="ticks are frames"):
        Grid().tick_pts(Clock(Fraction(1), 0), 0)


def test_seconds_count_from_the_first_frame() -> None:
    assert Clock(Fraction(1, 1000), 500).seconds(2000) == 1.5


@pytest.mark.parametrize(
    ("fps", "exact"), [("29.97002997", (30000, 1001)), ("0.6666666666666666", (2, 3)), ("0.1", (1, 10))]
)
def test_a_rate_is_the_nearest_fraction_that_containers_hold(fps: str, exact: tuple[int, int]) -> None:
    decode, encode = f'[[stage]]\nkind = "decode"\nfps = {fps}\n', '[[stage]]\nkind = "encode"\nformat = "npz"\n'
    text = f'name = "p"\nmedia = "video"\n{decode}{encode}'
    assert parse_pipeline(text, "p.toml").grid.fps == Fraction(*exact)
