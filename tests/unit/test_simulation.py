"""The simulation of fleets: what it must never do, and cases whose answer can be computed by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.costs import StageWork, Work
from placement.fleet import Device, Fleet, Rig, assumed_card, assumed_cpu
from placement.groups import NETWORK_SHARE
from placement.routes import Placement, Role
from placement.rules import rate_of
from placement.simulated import Fault, Simulated, Submission
from placement.simulated_machine import WorkerRules
from placement.simulation import MOST_PIECES, simulate

NAME = "film"
STAGES = ("decode", "infer", "encode")


def work(pieces: int, piece_bytes: float = 1e5, part_bytes: float = 1e3) -> Work:
    stages = (
        StageWork("decode", "decode", frames=1, width=64, height=64, codec="h264", gives_bytes=part_bytes),
        StageWork("infer", "infer", frames=1, rows=1, model="m", gives_bytes=10),
        StageWork("encode", "encode", frames=1, gives_bytes=10),
    )
    return Work(NAME, stages, pieces, piece_bytes, frames=1)


def card(name: str, compute_s: float, decode_s: float = 0.001, link_bytes_per_s: float = 1e12) -> Device:
    figures = {
        "decode_frames_per_s": {"h264 64x64": 1 / decode_s},
        "to_device_bytes_per_s": link_bytes_per_s,
        "from_device_bytes_per_s": link_bytes_per_s,
    }
    return Device(name, assumed_card().model_copy(update=figures), frame_s={(NAME, "infer"): compute_s})


def core(name: str, compute_s: float) -> Device:
    return Device(name, assumed_cpu(1), frame_s={(NAME, "infer"): compute_s})


def fleet_of(*rigs: tuple[Device, ...], cores: int = 64, link: float = 1e12) -> Fleet:
    return Fleet(tuple(Rig(f"rig{n}", cores, devices, link_bytes_per_s=link) for n, devices in enumerate(rigs)))


def roles_of(fleet: Fleet) -> dict[str, Role]:
    """All stages on all devices."""
    return {device.name: Role(STAGES, STAGES) for _, device in fleet.places()}


def run(fleet: Fleet, *given: Submission, **more: object) -> Simulated:
    """With all stages on all devices."""
    roles = roles_of(fleet)
    return simulate(fleet, given, [Placement(NAME, roles, {}, 0.0)] * len(given), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "every_s"),
    [
        (card("c", 0.5, decode_s=0.1), 0.5),
        (card("c", 0.1, decode_s=0.5), 0.5),
        (card("c", 0.1, link_bytes_per_s=1e5 / 0.5), 0.5),
        (core("c", 0.5), 0.5),
    ],
    ids=["compute", "decoder", "link", "core"],
)
def test_one_device_takes_as_long_as_its_slowest_part(device: Device, every_s: float) -> None:
    outcome = run(fleet_of((device,)), Submission(work(100)))
    assert outcome.finish_s == pytest.approx(100 * every_s, rel=0.04)
    busiest = max(outcome.uses, key=lambda use: use.flowing)
    assert busiest.flowing > 0.95


def test_a_slow_network_limits_all_cards_of_its_rig() -> None:
    cards = tuple(card(f"c{n}", 0.01) for n in range(8))
    outcome = run(fleet_of(cards, link=1e5 / 0.25), Submission(work(100)))
    assert outcome.finish_s == pytest.approx(25, rel=0.04)


def test_few_cores_limit_many_cards() -> None:
    """Each piece takes a core 4.4 ms, as placement.costs has it."""
    cards = tuple(card(f"c{n}", 0.004) for n in range(8))
    [use] = [use for use in run(fleet_of(cards, cores=1), Submission(work(4000))).uses if use.kind == "cores"]
    assert use.flowing > 0.95


def test_equal_arguments_give_equal_answers_and_seeds_differ() -> None:
    fleet = fleet_of((card("a", 0.2), card("b", 0.3)))
    first, again, other = (run(fleet, Submission(work(50)), jitter=0.2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.finish_s != other.finish_s


def test_a_card_that_dies_leaves_its_work_to_others_and_no_part_is_missing() -> None:
    fleet = fleet_of((card("a", 0.5), card("b", 0.5)))
    whole = run(fleet, Submission(work(40)))
    outcome = run(fleet, Submission(work(40)), faults=[Fault("a", 5.0)])
    assert outcome.unfinished == 0
    assert whole.finish_s + 3 < outcome.finish_s < 25
    assert outcome.pieces["a"] + outcome.pieces["b"] >= 40


def test_a_rig_that_reboots_comes_back_and_its_leases_end_first() -> None:
    fleet = fleet_of((card("a", 0.5),))
    outcome = run(fleet, Submission(work(10)), faults=[Fault("rig0", 1.2, 30.0)])
    assert outcome.unfinished == 0
    assert 31.2 + 8 * 0.5 - 1 < outcome.finish_s < 31.2 + 10 * 0.5 + 1


def test_jobs_of_a_fleet_that_is_gone_never_end_and_that_is_said() -> None:
    outcome = run(fleet_of((card("a", 0.5),)), Submission(work(4), 3), faults=[Fault("rig0", 2.9)])
    assert 0 < outcome.unfinished < 3 or outcome.unfinished == 2
    assert [job.end_s for job in outcome.jobs][-1] == math.inf


def test_an_interactive_job_does_not_wait_behind_bulk() -> None:
    bulk = Submission(work(200))
    urgent = replace(bulk, work=work(1), at_s=5.0, interactive=True)
    outcome = run(fleet_of((core("a", 0.2), core("b", 0.2))), bulk, urgent)
    assert outcome.jobs[1].end_s < 6.0
    assert outcome.jobs[0].end_s > 20.0


def test_a_long_piece_is_shared_by_workers_that_wait() -> None:
    fleet = fleet_of(tuple(core(f"c{n}", 12.0) for n in range(4)))
    outcome = run(fleet, Submission(work(1), parts=12))
    assert 12 / 4 < outcome.finish_s < 0.45 * 12


def test_parts_that_a_stage_needs_in_order_stay_with_their_worker() -> None:
    fleet = fleet_of(tuple(core(f"c{n}", 12.0) for n in range(4)))
    stages = tuple(replace(stage, of_decode=stage.name == "infer") for stage in work(1).stages)
    outcome = run(fleet, Submission(replace(work(1), stages=stages), parts=12))
    assert outcome.finish_s == pytest.approx(12, rel=0.02)


def test_what_decode_does_in_its_own_step_is_not_handed_on_apart() -> None:
    resize = StageWork("resize", "resize", frames=1, gives_bytes=10, of_decode=True)
    decode, infer, encode = work(1, part_bytes=1e9).stages
    given = replace(work(1), stages=(decode, resize, infer, encode))
    names = ("decode", "resize", "infer", "encode")
    fleet = fleet_of(tuple(core(f"c{n}", 12.0) for n in range(4)), link=1e6)
    placement = Placement(NAME, {f"c{n}": Role(names, names) for n in range(4)}, {}, 0.0)
    outcome = simulate(fleet, [Submission(given, parts=12)], [placement])
    assert outcome.finish_s < 0.5 * 12  # a part of 83 MB would take the network 83 s
    assert {queue.stage for queue in outcome.queues} == {"decode", "infer"}


def test_queues_keep_to_their_bytes() -> None:
    rules = WorkerRules(queue_bytes=1e6)
    outcome = run(fleet_of((card("a", 0.1),)), Submission(work(100, piece_bytes=1.5e5)), rules=rules)
    [queue] = [queue for queue in outcome.queues if queue.stage == "decode"]
    assert queue.messages == 6
    assert queue.nbytes <= 1e6


def test_stages_on_different_devices_hand_their_pieces_on() -> None:
    fleet = fleet_of((card("a", 9.0, decode_s=0.1),), (card("b", 0.1, decode_s=9.0),))
    placement = Placement(NAME, {"a": Role(STAGES[:1], STAGES[:1]), "b": Role(STAGES[1:], STAGES[1:2])}, {}, 0.0)
    outcome = simulate(fleet, [Submission(work(100))], [placement])
    assert outcome.finish_s == pytest.approx(10.5, rel=0.06)
    assert [queue.stage for queue in outcome.queues] == ["decode", "infer"]


def test_a_worker_computes_what_it_has_while_the_queue_is_full_of_it() -> None:
    """A card that waits for room in a queue whose only part it has itself would wait for ever."""
    cards = card("a", 0.2, decode_s=0.4), card("b", 0.05, decode_s=0.4), card("c", 0.5, decode_s=0.1)
    fleet = fleet_of(cards, cores=1, link=2e7)
    given = Submission(work(60, 1e6, 1.2e7), parts=4)
    outcome = run(fleet, given, rules=WorkerRules(queue_bytes=3e6), jitter=0.2, seed=1)
    assert outcome.unfinished == 0
    assert not outcome.repeated


def test_many_pieces_are_counted_in_groups_and_take_as_long() -> None:
    fleet = fleet_of(tuple(card(f"c{n}", 0.05) for n in range(4)))
    outcome = run(fleet, Submission(work(MOST_PIECES), 10))
    assert outcome.grouped == 10
    every_s = 0.05 + 0.004  # with a core, for its result
    assert outcome.finish_s == pytest.approx(MOST_PIECES * 10 * every_s / 4, rel=0.02)
    assert sum(outcome.pieces.values()) == MOST_PIECES * 10


def test_what_a_slow_worker_has_for_too_long_is_done_again_by_a_free_one() -> None:
    """The slow card takes three pieces of 20 s before it knows how long one takes."""
    fleet = fleet_of((card("fast", 0.2),), (card("slow", 20.0),))
    outcome = run(fleet, Submission(work(40)))
    assert outcome.unfinished == 0
    assert outcome.finish_s < 20.0
    assert outcome.pieces["fast"] == 40
    alike = run(fleet_of((card("a", 2.0), card("b", 2.0))), Submission(work(8)))
    assert alike.repeated == 0
    assert sum(alike.pieces.values()) == 8


devices = st.builds(
    lambda gpu, compute_s, decode_s: (gpu, compute_s, decode_s),
    st.booleans(),
    st.floats(0.01, 2.0),
    st.floats(0.01, 1.0),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(devices, min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([1, 8]),
    st.sampled_from([1e9, 3e5]),
)
def test_every_part_is_computed_and_never_faster_than_the_fleet_can(
    rigs: list[list[tuple[bool, float, float]]], pieces: int, jobs: int, parts: int, batch: int, link: float
) -> None:
    made = [
        tuple(
            card(f"{r}-{d}", compute_s, decode_s) if gpu else core(f"{r}-{d}", compute_s)
            for d, (gpu, compute_s, decode_s) in enumerate(rig)
        )
        for r, rig in enumerate(rigs)
    ]
    fleet = fleet_of(*made, cores=2, link=link)
    given_work = work(pieces)
    outcome = run(fleet, Submission(given_work, jobs, parts=parts, batch=batch))
    assert outcome.unfinished == 0
    if not outcome.repeated:
        assert sum(outcome.pieces.values()) == pieces * jobs
    assert sum(outcome.pieces.values()) <= pieces * jobs + outcome.repeated
    assert outcome.finish_s >= 0.999 * NETWORK_SHARE * pieces * jobs / rate_of(fleet, given_work, roles_of(fleet))
    assert all(use.share <= 1.0 for use in outcome.uses)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 20.0), st.floats(0.1, 10.0)), max_size=6),
    st.integers(1, 30),
    st.integers(1, 3),
)
def test_whatever_fails_and_comes_back_all_jobs_end(
    faults: list[tuple[int, float, float]], pieces: int, parts: int
) -> None:
    fleet = fleet_of((card("c0", 0.3), core("c1", 0.9)), (card("c2", 0.5), card("c3", 0.2, decode_s=0.6)))
    names = ("c0", "c1", "c2", "c3", "rig0", "rig1")
    given_faults = [Fault(names[which], at_s, seconds) for which, at_s, seconds in faults]
    outcome = run(fleet, Submission(work(pieces), 2, parts=parts), faults=given_faults)
    assert outcome.unfinished == 0
