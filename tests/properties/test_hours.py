"""Hours of a rig: which minutes they have, beside a reference that writes down every minute of a week."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.hours import DAYS, Hours
from schemas.settings import load_settings

MINUTE = st.integers(0, 1439)
SPAN = st.tuples(st.none() | st.tuples(st.integers(0, 6), st.integers(0, 6)), st.none() | st.tuples(MINUTE, MINUTE))


def text_of(span: tuple[tuple[int, int] | None, tuple[int, int] | None]) -> str:
    days, times = span
    words = [f"{DAYS[days[0]]}-{DAYS[days[1]]}"] if days else []
    words += ["-".join(f"{each // 60:02}:{each % 60:02}" for each in times)] if times else []
    return " ".join(words) or "mon-sun"


def minutes_of(span: tuple[tuple[int, int] | None, tuple[int, int] | None]) -> set[int]:
    """Minutes of a week, written down one by one."""
    days, times = span
    first, last = days or (0, 6)
    begin, end = times or (0, 1440)
    found, day = set(), first
    while True:
        at = begin
        while True:
            found.add((day * 1440 + at) % 10080)
            at += 1
            if at == end or at == end + 1440 or at - begin == 1440:
                break
        if day == last:
            return found
        day = (day + 1) % 7


def moment(minute: int) -> time.struct_time:
    day, rest = divmod(minute % 10080, 1440)
    return time.struct_time((2026, 11, 23 + day, rest // 60, rest % 60, 30, day, 1, 0))


@settings(max_examples=30)
@given(spans=st.lists(SPAN, min_size=1, max_size=3), minutes=st.lists(st.integers(0, 10079), min_size=1, max_size=20))
def test_hours_have_the_minutes_that_their_text_says(spans: list[object], minutes: list[int]) -> None:
    hours = Hours.parse(", ".join(map(text_of, spans)))  # type: ignore[arg-type]
    expected = set[int]().union(*map(minutes_of, spans))  # type: ignore[arg-type]
    for minute in minutes:
        assert hours.open_at(moment(minute)) == (minute in expected)
    at = minutes[0]
    ahead = next((far for far in range(1, 10080) if ((at + far) % 10080 in expected) != (at in expected)), 0)
    assert hours.changes_in(moment(at)) == ahead


@pytest.mark.parametrize("wrong", ["8-18", "25:00-26:00", "24:00-08:00", "mon tue", "xyz", "08:00", "mon-fri,,"])
def test_hours_that_cannot_be_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="takes spans such as"):
        Hours.parse(wrong)


def test_without_hours_work_is_always_taken() -> None:
    hours = Hours.parse("")
    assert hours.open_at(moment(0))
    assert hours.changes_in(moment(0)) == 0


def test_the_setting_is_checked_when_it_is_read() -> None:
    assert load_settings({"hours": "mon-fri 18:00-08:00, sat-sun"}, {}).hours
    with pytest.raises(Exception, match=r"hours.*22:00-08:00"):
        load_settings({"hours": "at night"}, {})
