"""Tenants on the simulated fleet of `rigflow simulate`: random mixes are shared by weight, and nothing idles for it."""

import random
import statistics

import pytest

from placement.costs import StageWork, Work
from placement.fleet import Device, Fleet, Rig, assumed_card, assumed_cpu
from placement.routes import Placement, Role
from placement.simulated import Fault, Simulated, Submission
from placement.simulated_machine import WorkerRules
from placement.simulation import simulate
from tests.shares import jain

LEAST = 40  # messages of each tenant for each worker: the last few are not shared, but left to the fastest workers
STAGES = ("decode", "infer", "encode")
SLOW = [pytest.param(range(first, min(first + 125, 1000)), marks=pytest.mark.slow) for first in range(3, 1000, 125)]


def work(rows: int, pieces: int) -> Work:
    """Pieces of so many rows, each of which takes a device its `frame_s`."""
    decode = StageWork("decode", "decode", frames=1, width=64, height=64, codec="h264", gives_bytes=1e3)
    infer = StageWork("infer", "infer", frames=rows, rows=rows, model="m", gives_bytes=10)
    return Work(
        "film", (decode, infer, StageWork("encode", "encode", frames=1, gives_bytes=10)), pieces, 1e5, frames=rows
    )


def random_rig(dice: random.Random, number: int) -> Rig:
    """A rig of cards or cores, alike."""
    row_s, count = dice.choice((0.5, 1.0, 2.0)), dice.randint(1, 3)
    pace = {("film", "infer"): row_s}
    if dice.random() < 0.5:
        devices = [Device(f"{number}-{each}", assumed_cpu(1), frame_s=pace) for each in range(count)]
    else:
        devices = [Device(f"{number}-{each}", assumed_card(), frame_s=pace) for each in range(count)]
    return Rig(f"rig{number}", 16, tuple(devices), link_bytes_per_s=1e12)


def mix(seed: int) -> tuple[Fleet, list[Submission], dict[str, float], float]:
    """A fleet, jobs of tenants, their weights, and how much the times of their pieces vary."""
    dice = random.Random(seed)
    rigs = tuple(random_rig(dice, number) for number in range(dice.randint(1, 3)))
    workers = sum(len(rig.devices) for rig in rigs)
    weights = {f"t{number}": dice.choice((1.0, 1.0, 2.0, 3.0, 5.0)) for number in range(dice.randint(2, 5))}
    rows = {tenant: dice.choice((1, 2, 4)) for tenant in weights}
    span = LEAST * workers * max(rows[tenant] / weight for tenant, weight in weights.items())  # rows of weight 1
    jobs = []
    for tenant, weight in weights.items():
        times = dice.uniform(1.3, 1.6) if jobs else 1.0  # the first ends while all others have work
        pieces = round(times * span * weight / rows[tenant])
        jobs.append(Submission(work(rows[tenant], pieces), parts=dice.choice((1, 2)), tenant=tenant))
    return Fleet(rigs), jobs, weights, dice.choice((0.0, 0.2, 0.5))


def run(
    fleet: Fleet, jobs: list[Submission], weights: dict[str, float], jitter: float, faults: tuple[Fault, ...] = ()
) -> Simulated:
    everything = Placement("film", {device.name: Role(STAGES, STAGES) for _, device in fleet.places()}, {}, 0.0)
    return simulate(fleet, jobs, [everything] * len(jobs), WorkerRules(weights=weights), faults, jitter, seed=1)


def check(seed: int) -> tuple[float, float]:
    """Jain's index of the seconds by weight while all wait, and the share of that time in which workers computed."""
    fleet, jobs, weights, jitter = mix(seed)
    outcome = run(fleet, jobs, weights, jitter)
    workers = len(list(fleet.places()))
    fair = jain([outcome.shares[tenant] / weight for tenant, weight in weights.items()])
    conserving = sum(outcome.shares.values()) / (workers * outcome.shared_s)
    assert outcome.unfinished == 0
    assert fair >= 0.95, f"mix {seed}: Jain's index is {fair:.3f}"
    assert conserving >= 0.98, f"mix {seed}: workers computed for {conserving:.3f} of the time"
    return fair, conserving


@pytest.mark.parametrize("seeds", [range(3), *SLOW])
def test_tenants_of_random_fleets_have_their_shares_and_no_worker_idles(seeds: range) -> None:
    fair, used = zip(*map(check, seeds), strict=True)
    print(f"{len(seeds)} mixes: Jain {min(fair):.4f} (median {statistics.median(fair):.4f}), work {min(used):.4f}")


def test_a_tenant_with_little_work_is_not_behind_one_with_much() -> None:
    """In front of 600 pieces of another, it ends as soon as its share lets it."""
    fleet = Fleet((random_rig(random.Random(3), 0),))
    jobs = [Submission(work(1, 600), tenant="much"), Submission(work(1, 30), tenant="little")]
    first, shared = run(fleet, jobs, {}, 0.0), run(fleet, jobs, {"much": 1.0, "little": 1.0}, 0.0)
    assert shared.jobs[1].end_s < 0.2 * first.jobs[1].end_s
    assert shared.finish_s < 1.02 * first.finish_s


def test_what_a_worker_hands_back_or_loses_with_its_device_is_not_counted_twice() -> None:
    fleet, jobs, weights, jitter = mix(2)
    device = next(device.name for _, device in fleet.places())
    outcome = run(fleet, jobs, weights, jitter, (Fault(device, 20.0, 30.0),))
    assert outcome.unfinished == 0
    assert jain([outcome.shares[tenant] / weight for tenant, weight in weights.items()]) >= 0.9
