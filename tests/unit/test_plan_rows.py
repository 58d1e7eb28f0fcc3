"""The jobs of `benchmarks.plans`: slowed fleets, for which plan and simulation predict about the same."""

from pathlib import Path

import pytest

from benchmarks.plan_rows import RATES, SEGMENT_S, row_of
from tests.simulated_machine import simulated_workers


@pytest.mark.parametrize(("pipeline", "fleet"), [("fingerprint", "mining"), ("classify", "mining")])
def test_plan_and_simulation_predict_the_same_of_a_slowed_fleet(tmp_path: Path, pipeline: str, fleet: str) -> None:
    row = row_of(pipeline, fleet, tmp_path, 12.0, each=6)
    assert row.plan.finish_s == pytest.approx(12.0, rel=0.01)
    assert row.simulated_s == pytest.approx(12.0, rel=0.25)
    workers = simulated_workers(row.fleet, row.work, tmp_path)
    assert len(workers) == sum(device.workers for _, device in row.fleet.places())
    assert {worker.decoders for worker in workers.values()} <= {0, 3}  # a core, or two more than one engine or core
    assert row.work.frames == SEGMENT_S * RATES[pipeline]
