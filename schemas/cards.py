"""Cards (GPUs, and workers on CPUs): whether the fleet trusts them, and the marks that parts have of them."""

import operator
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, FailFast, Field

from schemas.declared import Name
from schemas.fields import Count, GivenName, Moment

MOST_SPANS = 16  # of doubt that a record keeps; of more, the first ones become one
MOST_MARKS = 1024  # of a part, which is made of an entire media at most
_MARK = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})@([0-9]{1,15})", re.ASCII)

Mark: TypeAlias = Annotated[str, Field(max_length=96)]
Marks: TypeAlias = Annotated[tuple[Mark, ...], Field(max_length=MOST_MARKS, exclude_if=operator.not_), FailFast()]


class CardState(StrEnum):
    """Whether a card takes work."""

    TRUSTED = "trusted"
    QUARANTINED = "quarantined"
    CHECKING = "checking"  # a person wants it to work again: its worker computes canaries first


class Reason(StrEnum):
    """What a card was quarantined for."""

    CANARY = "canary"
    SELF_TEST = "self-test"  # an engine answers otherwise on it than where it was built
    FAULT = "fault"  # its driver reported an error, or it does not answer
    ORDER = "order"


class Doubt(BaseModel):
    """A span of time, in milliseconds since 1970: what a card computed for marks in it may be wrong. 0: it goes on."""

    model_config = ConfigDict(frozen=True)
    since_ms: Count
    until_ms: Count = 0

    def holds(self, at_ms: int) -> bool:
        """Whether a mark's time is in it."""
        return self.since_ms <= at_ms and (at_ms < self.until_ms or not self.until_ms)


class CardRecord(BaseModel):
    """What the fleet knows of a card that was quarantined once, at `at_s`; `rig` is that of its worker.

    `asked_s`: when a person asked last for its check.
    """

    model_config = ConfigDict(frozen=True)
    card: Name
    state: CardState
    reason: Reason
    why: GivenName = ""
    rig: GivenName = ""
    at_s: Moment = 0.0
    asked_s: Moment = 0.0
    doubts: tuple[Doubt, ...] = ()

    @property
    def works(self) -> bool:
        """Whether its workers take work."""
        return self.state is CardState.TRUSTED

    def doubted(self, since_ms: int) -> "CardRecord":
        """The record with a doubt that goes on since then, or since earlier if it has such a one."""
        before = [each for each in self.doubts if each.until_ms]
        since_ms = min([since_ms, *(each.since_ms for each in self.doubts if not each.until_ms)])
        if len(before) >= MOST_SPANS:
            first, second, *more = before
            before = [Doubt(since_ms=first.since_ms, until_ms=second.until_ms), *more]
        return self.model_copy(update={"doubts": (*before, Doubt(since_ms=since_ms))})

    def doubted_from(self, since_ms: int) -> "CardRecord":
        """The record whose newest doubt, which may have ended, begins then at the latest."""
        last = self.doubts[-1]
        last = last.model_copy(update={"since_ms": min(since_ms, last.since_ms)})
        return self.model_copy(update={"doubts": (*self.doubts[:-1], last)})

    def doubted_since(self, known: "CardRecord | None") -> bool:
        """Whether it has a doubt that an earlier state of it had not."""
        doubts = () if known is None else known.doubts
        ended_ms = max((each.until_ms for each in doubts), default=0)
        newer = sum(not each.until_ms or each.until_ms > ended_ms for each in self.doubts)
        return newer > any(not each.until_ms for each in doubts)

    def trusted(self, now_ms: int) -> "CardRecord":
        """The record of a card that works again: what it computes from now on is not in doubt."""
        ended = tuple(each if each.until_ms else each.model_copy(update={"until_ms": now_ms}) for each in self.doubts)
        return self.model_copy(update={"state": CardState.TRUSTED, "doubts": ended})


class CanaryRecord(BaseModel):
    """A card's answers to the canary of one group; empty until the first one.

    `first` is its first answer since it was trusted, `last` the newest, `good_ms` the time of the last good canary of
    `worker`. `group` is what cards must share to give equal bits, `kind` its device in words.
    `process`: the only one that has this group; empty where its answers are compared with those of others.
    `setup`: what an engine of its rig depends on, beside its kind: backend, precision, TF32 and driver.
    """

    model_config = ConfigDict(frozen=True)
    card: Name
    group: Name
    worker: GivenName = ""
    kind: GivenName = ""
    pipeline: GivenName = ""
    revision: GivenName = ""
    first: GivenName = ""
    last: GivenName = ""
    good_ms: Count = 0
    at_s: Moment = 0.0
    took_s: Moment = 0.0
    process: GivenName = Field(default="", exclude_if=operator.not_)
    setup: GivenName = Field(default="", exclude_if=operator.not_)


def card_name(uuid: str, worker: str) -> str:
    """The name of a worker's card: the UUID of its GPU, or on a CPU the worker's name as one token."""
    return uuid or re.sub(r"[^A-Za-z0-9_-]", "-", worker).lstrip("-_")[:64] or "cpu"


def mark_of(card: str, at_ms: int) -> str:
    """What a part has of a card that computed it: the card, and when its last canary began."""
    return f"{card}@{at_ms}"


def most_telling(marks: Iterable[str], most: int = MOST_MARKS) -> tuple[str, ...]:
    """So many of these marks at most: of too many, the newest of each card and then of all.

    A doubt that goes on began at the newest mark of its card, or before.
    """
    marks = tuple(marks)
    if len(marks) <= most:
        return marks
    found = sorted(filter(None, map(_MARK.fullmatch, marks)), key=lambda each: int(each[2]), reverse=True)
    newest: dict[str, str] = {}
    for each in found:
        newest.setdefault(each[1], each[0])
    return tuple(dict.fromkeys((*newest.values(), *(each[0] for each in found))))[:most]


class Doubts:
    """The doubts of all cards."""

    def __init__(self, records: Iterable[CardRecord] = ()) -> None:
        self._spans = {record.card: record.doubts for record in records if record.doubts}

    def has(self, mark: str) -> bool:
        """Whether what a card computed for this mark is in doubt. What is no mark is not."""
        found = _MARK.fullmatch(mark)
        return found is not None and any(each.holds(int(found[2])) for each in self._spans.get(found[1], ()))

    def any(self, marks: Iterable[str]) -> bool:
        """Whether one of these marks is in doubt."""
        return bool(self._spans) and any(map(self.has, marks))

    def cards(self, marks: Iterable[str]) -> list[str]:
        """The cards of the marks that are in doubt."""
        return sorted({mark.partition("@")[0] for mark in marks if self.has(mark)})
