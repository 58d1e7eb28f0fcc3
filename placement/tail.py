"""The end of a job: its last pieces go to the workers that end them first, and a very late piece is done twice."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

LATE = 3.0  # times its predicted seconds, after which a piece may be done again elsewhere
LEAST_LATE_S = 2.0  # a piece younger than this is never done again: what that could save is not worth it
MOST_REPEATS = 1  # of one piece


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


def repeats(age_s: float, predicted_s: float, done_again: int, own_s: float, late: float = LATE) -> bool:
    """Whether one that is free does a piece again that another has had for `age_s`, and ends it sooner than it is due.

    `own_s` is what it needs itself. The first result counts, by key; a piece is done again `MOST_REPEATS` times.
    """
    due_s = max(LEAST_LATE_S, late * predicted_s)
    return done_again < MOST_REPEATS and age_s > due_s and own_s < age_s
