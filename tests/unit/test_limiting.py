"""What limited a simulated job."""

import math

from cli.simulate_text import sentence
from placement.fleet import Device, Fleet, Rig, assumed_card
from placement.limiting import limit_of, starved
from placement.simulated import JobEnd, QueueUse, Simulated, Use

FLEET = Fleet((Rig("r", 2, tuple(Device(f"r-gpu{n}", assumed_card("P106")) for n in range(2))),))


def outcome(shares: dict[str, float], flow_s: float = 90.0, queued: float = 0.0) -> Simulated:
    uses = [Use(kind, f"r-gpu{n}", share, share) for kind, share in shares.items() if kind != "cores" for n in (0, 1)]
    uses += [Use("cores", "r", shares.get("cores", 0.0), shares.get("cores", 0.0))]
    queue = QueueUse("p", "decode", 3, queued, 100.0)
    return Simulated(100.0, flow_s, (JobEnd(0.0, 100.0),), tuple(uses), (queue,), {}, 0, 1)


def test_the_busiest_part_limits() -> None:
    limit = limit_of(outcome({"decoder": 0.97, "worker": 0.99, "cores": 0.5}), FLEET)
    assert (limit.kind, limit.owners, limit.share) == ("decoder", ("P106",), 0.97)
    assert limit_of(outcome({"decoder": 0.5, "cores": 0.9}), FLEET).owners == ("r",)


def test_all_parts_that_are_about_as_busy_are_named() -> None:
    limit = limit_of(outcome({"decoder": 1.0, "cores": 0.99, "link": 0.9}), FLEET)
    assert [(each.kind, each.owners) for each in (limit, *limit.others)] == [("decoder", ("P106",)), ("cores", ("r",))]
    assert sentence(limit) == (
        "the video decoders of P106, busy 100%, and the processor cores of r, 99%"
        " while there was work for all (the tables are of the entire time)"
    )


def test_a_worker_whose_parts_take_turns_limits_by_itself() -> None:
    assert limit_of(outcome({"compute": 0.6, "worker": 0.98}), FLEET).kind == "worker"


def test_without_a_full_part_it_is_the_tail_or_a_full_queue_or_nothing() -> None:
    assert limit_of(outcome({"compute": 0.6}, flow_s=40.0), FLEET).kind == "tail"
    assert limit_of(outcome({"compute": 0.6}, queued=99.0), FLEET).owners == ("p decode",)
    none = limit_of(outcome({"compute": 0.6}), FLEET)
    assert (none.kind, none.owners) == ("none", ("P106",))
    empty = Simulated(0.0, 0.0, (JobEnd(0.0, math.inf),), (), (), {}, 0, 1)
    assert limit_of(empty, FLEET).kind == "none"


def test_cards_that_wait_while_a_queue_is_full_are_named() -> None:
    assert starved(outcome({"decoder": 0.4, "cores": 0.3}, queued=95.0), FLEET) == ("P106",)
    assert starved(outcome({"decoder": 0.4, "cores": 0.3}, queued=50.0), FLEET) == ()
    assert starved(outcome({"decoder": 0.9, "cores": 0.3}, queued=95.0), FLEET) == ()
    assert starved(outcome({"decoder": 0.4, "cores": 0.95}, queued=95.0), FLEET) == ()
