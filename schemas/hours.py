"""The hours in which a rig takes work, by its own clock: `mon-fri 18:00-08:00, sat-sun`."""

import re
import time
from dataclasses import dataclass

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
_SPAN = re.compile(r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?)?\s*(?:(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d))?")
WRONG = "takes spans such as 22:00-08:00 or mon-fri 18:00-08:00, `,` between them; days are mon tue wed thu fri sat sun"


@dataclass(frozen=True, slots=True)
class _Span:
    """From `begin` on each of these days, for so many `minutes`, which may reach into the next day."""

    days: frozenset[int]
    begin: int
    minutes: int

    def has(self, day: int, minute: int) -> bool:
        since = minute - self.begin
        if since >= 0:
            return day in self.days and since < self.minutes
        return (day - 1) % 7 in self.days and since + DAY_MINUTES < self.minutes


@dataclass(frozen=True, slots=True)
class Hours:
    """When work is taken; without spans always."""

    spans: tuple[_Span, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """The hours of a setting. Raises ValueError."""
        spans = tuple(_span(each.strip().lower()) for each in text.split(",")) if text.strip() else ()
        return cls(spans)

    def open_at(self, moment: time.struct_time) -> bool:
        """Whether work is taken at a local time."""
        return self._open(moment.tm_wday, moment.tm_hour * 60 + moment.tm_min)

    def changes_at(self, moment: time.struct_time) -> str:
        """The day and time of the next change by the same clock, as `mon 08:00`; empty: there is none."""
        at = moment.tm_wday * DAY_MINUTES + moment.tm_hour * 60 + moment.tm_min
        now = self.open_at(moment)
        for minute in range(at + 1, at + WEEK_MINUTES):
            day, of_day = minute // DAY_MINUTES % 7, minute % DAY_MINUTES
            if self._open(day, of_day) is not now:
                return f"{DAYS[day]} {of_day // 60:02}:{of_day % 60:02}"
        return ""

    def _open(self, day: int, minute: int) -> bool:
        return not self.spans or any(span.has(day, minute) for span in self.spans)


def _span(text: str) -> _Span:
    found = _SPAN.fullmatch(text)
    if found is None or not text:
        raise ValueError(WRONG)
    first, last = found["first"], found["last"] or found["first"]
    if not {first, last} <= {None, *DAYS}:
        raise ValueError(WRONG)
    begin, end = _minute(found["begin"] or "00:00"), _minute(found["end"] or "24:00")
    if begin == DAY_MINUTES:
        raise ValueError(WRONG)
    days = frozenset(range(7))
    if first is not None:
        start, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
        days = frozenset((start + number) % 7 for number in range(length))
    return _Span(days, begin, end - begin if end > begin else end - begin + DAY_MINUTES)


def _minute(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if hour > 24 or minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise ValueError(WRONG)
    return hour * 60 + minute
