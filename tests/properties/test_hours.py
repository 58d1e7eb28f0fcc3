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
    ahead = next((far for far in range(1, 10080) if ((at + far) % 10080 in expected) != (at in expected)), None)
    then = None if ahead is None else moment(at + ahead)
    named = f"{DAYS[then.tm_wday]} {then.tm_hour:02}:{then.tm_min:02}" if then else ""
    assert hours.changes_at(moment(at)) == named


@pytest.mark.parametrize(
    ("day", "text", "minutes"),
    [
        ("2026-03-28", "22:00-08:00", 9 * 60),  # summer time begins in this night: an hour of it is not there
        ("2026-10-24", "22:00-08:00", 11 * 60),  # and ends: an hour is there twice
        ("2026-10-24", "sat 22:00-08:00", 11 * 60),
        ("2026-10-24", "sun 02:15-02:45", 60),
        ("2026-03-28", "sun 02:15-02:45", 0),
        ("2026-03-28", "sun 01:00-03:30", 90),
        ("2026-06-13", "22:00-08:00", 10 * 60),
        ("2026-06-13", "22:00-22:00", 24 * 60),
        ("2026-06-13", "fri 22:00-08:00", 0),
        ("2026-12-31", "thu 23:59-00:01", 2),
    ],
)
def test_hours_are_those_of_the_clock_on_the_wall_also_where_it_is_put_forward_or_back(
    monkeypatch: pytest.MonkeyPatch, day: str, text: str, minutes: int
) -> None:
    """Of the 24 real hours from a noon on, minute by minute, in Berlin."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        noon_s, hours = time.mktime(time.strptime(f"{day} 12:00", "%Y-%m-%d %H:%M")), Hours.parse(text)
        found = sum(hours.open_at(time.localtime(noon_s + 60 * minute)) for minute in range(24 * 60))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == minutes


@pytest.mark.parametrize("wrong", ["8-18", "25:00-26:00", "24:00-08:00", "mon tue", "xyz", "08:00", "mon-fri,,"])
def test_hours_that_cannot_be_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="takes spans such as"):
        Hours.parse(wrong)


def test_without_hours_work_is_always_taken() -> None:
    hours = Hours.parse("")
    assert hours.open_at(moment(0))
    assert hours.changes_at(moment(0)) == ""


def test_the_setting_is_checked_when_it_is_read() -> None:
    assert load_settings({"hours": "mon-fri 18:00-08:00, sat-sun"}, {}).hours
    with pytest.raises(Exception, match=r"hours.*22:00-08:00"):
        load_settings({"hours": "at night"}, {})
