"""Batches wait for more rows as long as that pays: in simulated workers, whatever comes at whatever rate."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from workers.batch_wait import LEAST_S, MOST_S, TIMES, most_wait_s

ROWS = 8  # of a full batch


@dataclass
class Worker:
    """Makes parts that take `part_s` each and have some rows, and runs batches of up to `ROWS` that take `batch_s`.

    A batch runs when it is full, when its first row has waited for as long as the rule says, and when no part is left:
    as `workers.batching` does it.
    """

    parts: list[int]  # rows of each part
    part_s: float
    batch_s: float
    now_s: float = 0.0
    batches: int = 0
    not_full_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    def work(self) -> "Worker":
        waiting: list[float] = []  # when each row came
        for rows in self.parts:
            self.now_s += self.part_s
            waiting += [self.now_s] * rows
            while len(waiting) >= ROWS or (waiting and self.now_s - waiting[0] >= self.wait_s):
                self.run(waiting)
        while waiting:
            self.run(waiting)
        return self

    @property
    def wait_s(self) -> float:
        return most_wait_s(self.batches, self.batches * self.batch_s)

    def run(self, waiting: list[float]) -> None:
        taken = waiting[:ROWS]
        del waiting[:ROWS]
        self.waits_s += [self.now_s - came_s for came_s in taken]
        self.now_s += self.batch_s
        self.batches += 1
        self.not_full_s += self.batch_s if len(taken) < ROWS else 0.0


PARTS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 5, 20]), min_size=1, max_size=300)
WORKERS = st.builds(
    Worker, PARTS, st.floats(0.001, 3, allow_nan=False), st.sampled_from([0.001, 0.02, 0.1, 0.4, 1.0, 4.0, 30.0])
)


@given(WORKERS)
def test_no_row_waits_for_longer_than_some_batches_and_none_is_left(worker: Worker) -> None:
    worker.work()
    assert len(worker.waits_s) == sum(worker.parts)
    most_s = min(MOST_S, max(LEAST_S, TIMES * worker.batch_s))
    before_s = worker.part_s + worker.batch_s * (
        1 + max(worker.parts) // ROWS
    )  # a part, or batches, that run meanwhile
    assert all(wait_s <= most_s + before_s + 1e-6 for wait_s in worker.waits_s)


@given(WORKERS)
def test_batches_that_are_not_full_take_a_small_share_of_the_time(worker: Worker) -> None:
    worker.work()
    last_s = worker.batch_s  # the last one of all
    share = worker.batch_s / (worker.batch_s + max(LEAST_S, min(MOST_S, TIMES * worker.batch_s)))
    assert worker.not_full_s - last_s <= share * worker.now_s + 1e-6
    if worker.batch_s <= MOST_S / TIMES:
        assert worker.not_full_s - last_s <= worker.now_s / TIMES + 1e-6


def test_rows_that_come_soon_enough_fill_batches() -> None:
    """A row every 0.2 s, 0.1 s a batch: eight come within the wait, and no batch but the last is not full."""
    worker = Worker([1] * 100, 0.2, 0.1).work()
    assert worker.batches == 13
    seldom = Worker([1] + [0] * 999, 0.05, 0.1).work()  # a picture beside a film in which nothing is found
    assert seldom.waits_s[0] <= LEAST_S + 0.05 + 1e-6


def test_the_wait_follows_what_batches_take() -> None:
    assert most_wait_s(0, 0.0) == LEAST_S
    assert most_wait_s(10, 0.5) == LEAST_S
    assert most_wait_s(10, 5.0) == 5.0
    assert most_wait_s(2, 60.0) == MOST_S
