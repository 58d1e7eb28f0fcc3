"""The rule that shares a worker among tenants: fair by weight, never idle beside work, and nothing is saved up."""

import random
import statistics

import pytest

from placement.fair_share import BURST_S, FairShare
from tests.shares import Load, jain, simulate

SPAN_S = 150.0
SLOW = [pytest.param(range(first, first + 190), marks=pytest.mark.slow) for first in range(50, 1000, 190)]


def mix(seed: int) -> tuple[dict[str, Load], list[float], float]:
    """A random fleet with random tenants: weights, lengths of messages, and how wrong predictions are."""
    dice = random.Random(seed)
    speeds = [dice.choice((0.2, 1.0, 1.0, 4.0)) for _ in range(dice.randint(1, 6))]
    loads = {}
    for number in range(dice.randint(2, 6)):
        mean_s, work_s = dice.choice((0.2, 0.5, 1.0)), 0.0
        arrivals, begin_s = [], dice.choice((0.0, 0.0, dice.uniform(0, SPAN_S / 4)))
        while work_s < sum(speeds) * SPAN_S * dice.uniform(0.8, 1.0):
            arrivals.append((begin_s, seconds := mean_s * dice.uniform(0.5, 1.5)))
            work_s += seconds
        loads[f"t{number}"] = Load(dice.choice((1.0, 1.0, 2.0, 3.0, 5.0)), arrivals)
    return loads, speeds, dice.choice((0.0, 0.3, 1.0))


def check(seed: int) -> tuple[float, float]:
    loads, speeds, error = mix(seed)
    outcome = simulate(loads, speeds, error, seed, SPAN_S)
    fair = jain([outcome.served_while_all_wait[name] / load.weight for name, load in loads.items()])
    assert fair >= 0.95, f"mix {seed}: Jain's index is {fair:.3f}"
    assert outcome.work_conserving >= 0.98, f"mix {seed}: {outcome.work_conserving:.3f} of the possible time was used"
    return fair, outcome.work_conserving


@pytest.mark.parametrize("seeds", [range(50), *SLOW])
def test_random_mixes_are_shared_by_weight_and_no_worker_idles_beside_work(seeds: range) -> None:
    found = [check(seed) for seed in seeds]
    fair, conserving = zip(*found, strict=True)
    print(
        f"{len(seeds)} mixes: Jain {min(fair):.4f} (median {statistics.median(fair):.4f}), work {min(conserving):.4f}"
    )


@pytest.mark.parametrize("many", [10, 10_000])
def test_a_tenant_with_ten_messages_has_its_share_from_the_first_second(many: int) -> None:
    """Whatever the other has waiting: of the first twenty messages each has ten."""
    share, served = FairShare(), []
    left = {"many": many, "few": 10}
    while len(served) < 20:
        share.wait([name for name, count in left.items() if count])
        name = min((each for each in left if left[each]), key=share.tag)
        share.serve(name, 1.0)
        share.end(name, 0.0)
        left[name] -= 1
        served.append(name)
    assert served.count("few") == 10
    assert max(abs(2 * served[:count].count("few") - count) for count in range(20)) <= 1


def test_a_tenant_that_was_away_saves_nothing_up_and_owes_nothing() -> None:
    share = FairShare({"away": 5.0})
    share.serve("away", 1.0)
    share.end("away", 0.0)
    for _ in range(1000):
        share.wait(["there"])
        share.serve("there", 1.0)
        share.end("there", 0.0)
    share.wait(["there", "away"])
    first = []
    for _ in range(12):
        first.append(name := min(("there", "away"), key=lambda each: (share.tag(each), each)))
        share.serve(name, 1.0)
        share.end(name, 0.0)
    assert first.count("away") == 10


def test_wrong_predictions_are_corrected_when_messages_end() -> None:
    """One tenant's messages take ten times as long as predicted: it gets a tenth of the messages, and half the time."""
    share, served = FairShare(), {"liar": 0, "true": 0}
    share.wait(list(served))
    for _ in range(1100):
        name = min(served, key=lambda each: (share.tag(each), each))
        share.serve(name, 1.0)
        share.end(name, 9.0 if name == "liar" else 0.0)
        served[name] += 1
    assert served["liar"] == pytest.approx(100, abs=2)


def test_how_far_ahead_a_tenant_is_counts_only_beside_those_that_wait() -> None:
    share = FairShare({"big": 2.0})
    share.wait(["big", "small"])
    share.serve("big", 4 * BURST_S)
    assert share.ahead_s("big") == 2 * BURST_S
    assert share.ahead_s("small") == 0.0
    share.wait(["big"])
    assert share.ahead_s("big") == 0.0
