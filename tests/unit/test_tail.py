"""The tail in one worker: what it leaves to others, for how long, and what becomes of a copy that fails."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.delivery import Delivery
from placement.tail import Leaving, TailWorker, repeats
from schemas.errors import MediaError
from schemas.jobs import Priority
from schemas.placed import PlacedDevice, PlacedPipeline
from schemas.subjects import HEADER_COPY
from workers import stragglers as stragglers_module
from workers import tail as tail_module
from workers.failures import Failures
from workers.in_flight import InFlight, Queue, State
from workers.messages_in_flight import MessagesInFlight
from workers.peers import Peer
from workers.roles import WorkerRoles
from workers.stragglers import Stragglers
from workers.tail import Tail
from workers.throughput import Throughput

QUEUE = Queue("p", "decode", Priority.BULK)


class TenSeconds(Throughput):
    def message_s(self, pipeline: str, stage: str) -> float:
        return 10.0


class Slow(MessagesInFlight):
    """Messages of a worker that takes ten seconds for one, and has none now."""

    def __init__(self) -> None:
        super().__init__()
        self.throughput = TenSeconds()


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tail_module, "time", made)
    return made


def fast(free: bool = True, message_s: float = 1.0) -> Peer:
    return Peer("fast", free, {("p", "decode"): message_s})


def test_a_slow_worker_takes_while_there_is_much_and_leaves_the_last(clock: Clock) -> None:
    tail = Tail(Slow())
    tail.update([fast()], clock.now_s)
    assert not tail.leaves(QUEUE, 50)
    assert not tail.left(QUEUE)
    assert tail.leaves(QUEUE, 3)
    assert tail.left(QUEUE)
    assert 0.0 < tail.left_s <= tail_module.PAUSE_S
    clock.now_s += 1.1
    assert not tail.left(QUEUE)


def test_it_takes_when_the_others_have_not_done_it_in_time(clock: Clock) -> None:
    tail = Tail(Slow())
    for _ in range(8):
        tail.update([fast()], clock.now_s)
        assert tail.leaves(QUEUE, 1)
        clock.now_s += 1.2
    clock.now_s += 5.0
    tail.update([fast()], clock.now_s)
    assert not tail.leaves(QUEUE, 1)


def test_it_leaves_them_for_as_long_as_the_others_do_what_was_predicted() -> None:
    """It has three messages, so that another one would end last, long after the others have ended all that wait."""
    leaving = Leaving[str]()
    others = [TailWorker(0.5)]
    for second in range(13):
        assert leaving.leaves("decode", 4.0, 16.0, 26 - 2 * second, others, float(second)), second
    for second in range(13, 18):
        assert leaving.leaves("decode", 4.0, 16.0, 1, others, float(second)), second
    assert not leaving.leaves("decode", 4.0, 16.0, 1, others, 17.5)


def test_it_takes_when_nobody_else_is_known(clock: Clock) -> None:
    tail = Tail(Slow())
    assert not tail.leaves(QUEUE, 1)
    tail.update([], clock.now_s)
    assert not tail.leaves(QUEUE, 1)
    tail.update([fast()], clock.now_s)
    clock.now_s += 60.0  # what was known is too old
    assert not tail.leaves(QUEUE, 1)
    assert not Tail(MessagesInFlight()).leaves(QUEUE, 1)  # nothing is measured yet


def test_with_a_long_message_it_takes_no_second_one_before_it_knows_the_others(clock: Clock) -> None:
    in_flight = Slow()
    tail = Tail(in_flight)
    assert not tail.leaves(QUEUE, 50)  # it has none yet
    in_flight.messages.add(InFlight(cast(Delivery, SimpleNamespace(nbytes=1)), QUEUE, in_flight.drop))
    assert not tail.leaves(Queue("p", "decode", Priority.INTERACTIVE), 50)
    assert tail.leaves(QUEUE, 50)
    assert 0.0 < tail.left_s <= tail_module.PAUSE_S
    tail.update([fast()], clock.now_s)
    assert not tail.leaves(QUEUE, 50)
    quick = MessagesInFlight()
    quick.messages |= in_flight.messages
    assert not Tail(quick).leaves(QUEUE, 50)  # a message takes less than a second


def test_it_waits_a_few_seconds_for_what_the_others_do_and_then_takes(clock: Clock) -> None:
    in_flight = Slow()
    tail = Tail(in_flight)
    in_flight.messages.add(InFlight(cast(Delivery, SimpleNamespace(nbytes=1)), QUEUE, in_flight.drop))
    for _ in range(2):  # before anything is known, and when that is too old
        assert tail.leaves(QUEUE, 50)
        clock.now_s += tail_module.WAIT_S + 0.1
        assert not tail.leaves(QUEUE, 50)
        assert not tail.leaves(QUEUE, 50)
        tail.update([fast()], clock.now_s)
        assert not tail.leaves(QUEUE, 50)
        clock.now_s += tail_module.FRESH_S + 0.1
    assert tail.leaves(QUEUE, 50)
    clock.now_s += tail_module.WAIT_S + 0.1
    message = in_flight.messages.pop()
    assert not tail.leaves(QUEUE, 50)
    in_flight.messages.add(message)
    assert tail.leaves(QUEUE, 50)


class Growing:
    """Answers that are being written."""

    busy = True


def test_a_worker_that_writes_answers_knows_what_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers_module, "LOOK_S", 0.0)
    in_flight = Slow()
    in_flight.continuing = cast(Any, Growing())
    message = InFlight(cast(Delivery, SimpleNamespace(nbytes=1)), QUEUE, in_flight.drop)
    message.taken_s -= 60.0
    in_flight.messages.add(message)

    async def look() -> None:
        updated = asyncio.Event()
        intake = SimpleNamespace(tail=SimpleNamespace(update=lambda *_: updated.set()))
        stragglers = Stragglers(cast(Any, None), "w", in_flight, cast(Any, intake), cast(Any, None))

        async def refresh() -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(stragglers._peers, "refresh", refresh)
        task = asyncio.create_task(stragglers.run())
        await asyncio.wait_for(updated.wait(), 60.0)
        task.cancel()

    asyncio.run(look())


@pytest.mark.parametrize(
    ("age_s", "predicted_s", "done_again", "own_s", "wanted"),
    [
        (10.0, 1.0, 0, 1.0, True),
        (2.9, 1.0, 0, 1.0, False),  # not three times as long yet
        (1.9, 0.1, 0, 0.1, False),  # too young to be worth it
        (10.0, 1.0, 1, 1.0, False),  # once
        (10.0, 1.0, 0, 11.0, False),  # it would take longer here
    ],
)
def test_when_a_message_is_done_again(
    age_s: float, predicted_s: float, done_again: int, own_s: float, wanted: bool
) -> None:
    assert repeats(age_s, predicted_s, done_again, own_s) is wanted


class Given:
    """A delivery without a broker: what it was settled with."""

    has_blob = False

    def __init__(self, **headers: str) -> None:
        self.headers = headers
        self.nbytes = 0
        self.settled = ""

    async def terminate(self, reason: str) -> None:
        self.settled = reason


def test_a_copy_that_fails_publishes_nothing_and_is_not_tried_again() -> None:
    """Its `Failures` has neither a broker nor attempts to write to."""
    given = Given(**{HEADER_COPY: "1"})
    message = InFlight(cast(Delivery, given), QUEUE, lambda _: None)
    nowhere: Any = SimpleNamespace(settings=SimpleNamespace(max_deliver=4))
    failures = Failures(nowhere, cast(Any, None), "w")
    assert asyncio.run(failures.retry(message, MediaError("it failed", "see why"), 1.0))
    assert message.state is State.CANCELLED
    assert "copy" in given.settled
    assert not InFlight(cast(Delivery, Given()), QUEUE, lambda _: None).is_copy


def test_roles_are_taken_renewed_and_expire() -> None:
    roles, changes = WorkerRoles(), []
    roles.on_change = lambda: changes.append(1)
    assert roles.takes("p", "infer")
    assert not roles.gives_away("p", "infer")
    device = PlacedDevice(runs=("decode", "resize"), takes=("decode",), why="others infer")
    placed = PlacedPipeline(pipeline="p", revision="r", devices={"a-cpu": device}, since_s=1.0)
    for now_s in (0.0, 5.0):
        roles.renew(placed, "a-cpu", now_s)
    assert len(changes) == 1  # a renewal is no change
    assert (roles.takes("p", "decode"), roles.takes("p", "infer"), roles.gives_away("p", "infer")) == (
        True,
        False,
        True,
    )
    assert roles.takes("q", "infer")
    roles.expire(16.0)
    assert roles.gives_away("p", "infer")
    roles.expire(18.0)
    assert not roles.gives_away("p", "infer")
    roles.renew(placed, "other-cpu", 19.0)  # a device that the placement does not know does everything
    assert roles.takes("p", "infer")
