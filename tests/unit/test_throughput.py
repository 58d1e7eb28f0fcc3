"""What a worker takes for a message, also where messages are computed together and end together."""

from types import SimpleNamespace
from typing import Any

import pytest

from workers.in_flight import State
from workers.throughput import Throughput


def ended(throughput: Throughput, now_s: float, state: State = State.ACKED, nbytes: int = 0) -> None:
    delivery = SimpleNamespace(stored_bytes=nbytes)
    message: Any = SimpleNamespace(
        delivery=delivery, state=state, taken_s=0.0, queue=SimpleNamespace(pipeline="p", stage="s")
    )
    throughput.ended(message, now_s)


@pytest.mark.parametrize("together", [1, 3, 32, 64])
def test_messages_that_end_together_take_their_share_each(together: int) -> None:
    throughput = Throughput()
    assert throughput.message_s("p", "s") == throughput.slowest_s == 0.0
    for batch in range(1, 30):
        for number in range(together):
            ended(throughput, 0.05 * together * batch + 0.0001 * number)
        assert throughput.message_s("p", "s") == pytest.approx(0.05, rel=0.1)


def test_the_last_messages_count_however_quick_they_are() -> None:
    throughput = Throughput()
    for number in range(20):
        ended(throughput, 1.0 * number)
    for number in range(1000):
        ended(throughput, 19.0 + 0.001 * number)
    assert throughput.message_s("p", "s") == pytest.approx(0.001, rel=0.1)
    ended(throughput, 30.0, State.CANCELLED)
    assert throughput.message_s("p", "s") == pytest.approx(0.001, rel=0.1)


def test_the_bytes_are_those_of_the_messages_whose_time_counts() -> None:
    throughput = Throughput()
    assert throughput.message_bytes("p", "s") == 0.0
    for number in range(40):
        ended(throughput, 1.0 * number, nbytes=1000 if number < 20 else 5000)
    ended(throughput, 40.0, State.RETRIED, nbytes=10**6)
    assert throughput.message_bytes("p", "s") == 5000
