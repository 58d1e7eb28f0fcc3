"""The end of a job: its last pieces go to the workers that end them first, and a very late piece is done twice."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LATE = 3.0  # times its predicted seconds, after which a piece may be done again elsewhere
LEAST_LATE_S = 2.0  # a piece younger than this is never done again: what that could save is not worth it
MOST_REPEATS = 1  # of one piece


WORTH_S = 1.0  # of a message: a worker that is faster always takes it
PAUSE_S = 1.0  # that a queue is left to the others at a time
Q = TypeVar("Q")  # the name of a queue


@dataclass(frozen=True, slots=True)
class TailWorker:
    """A worker at the end of a job: the seconds of one piece, and the seconds until it can begin the next."""

    piece_s: float
    free_in_s: float = 0.0


def others_end_s(waiting: int, others: Sequence[TailWorker]) -> float:
    """Seconds in which `others` end so many pieces, each done by the first to end it; infinite without others."""
    runners = [each for each in others if each.piece_s > 0.0]
    if not runners or waiting <= 0:
        return float("inf") if waiting > 0 else 0.0
    ends = [(each.free_in_s + each.piece_s, each.piece_s) for each in runners]
    heapq.heapify(ends)
    last_s = 0.0
    for _ in range(waiting):
        end_s, piece_s = ends[0]
        last_s = max(last_s, end_s)
        heapq.heapreplace(ends, (end_s + piece_s, piece_s))
    return last_s


def takes(piece_s: float, waiting: int, others: Sequence[TailWorker]) -> bool:
    """Whether one that is free and needs `piece_s` takes the next of the pieces that wait.

    It leaves them where the others end all of them sooner than it would end this one. With many that wait it always
    takes one, so that no worker is idle before the tail.
    """
    rate = sum(1.0 / each.piece_s for each in others if each.piece_s > 0.0)
    if piece_s * rate <= waiting:  # at their full rate, the others would need longer
        return True
    return piece_s <= others_end_s(waiting, others)


class Leaving(Generic[Q]):
    """Queues that one worker leaves to others now, each for a moment at a time."""

    def __init__(self) -> None:
        self.until_s: dict[Q, float] = {}
        self._due_s: dict[Q, float] = {}

    def leaves(
        self, queue: Q, piece_s: float, own_s: float, waiting: int, others: Sequence[TailWorker], now_s: float
    ) -> bool:
        """Whether the next of `waiting` pieces is left to others, because they end all of them sooner than `own_s`.

        Until `piece_s` after they should have ended all, at most: then they have not done what was predicted.
        """
        if piece_s < WORTH_S:
            return False
        if takes(own_s, waiting, others):
            self._due_s.pop(queue, None)
            return False
        if now_s > self._due_s.setdefault(queue, now_s + others_end_s(waiting, others) + piece_s):
            del self._due_s[queue]
            return False
        self.until_s[queue] = now_s + PAUSE_S
        return True


def repeats(age_s: float, predicted_s: float, done_again: int, own_s: float, late: float = LATE) -> bool:
    """Whether one that is free does a piece again that another has had for `age_s`, and ends it sooner than it is due.

    `own_s` is what it needs itself. The first result counts, by key; a piece is done again `MOST_REPEATS` times.
    """
    due_s = max(LEAST_LATE_S, late * predicted_s)
    return done_again < MOST_REPEATS and age_s > due_s and own_s < age_s
