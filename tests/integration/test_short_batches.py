"""How many full batches a worker gives to a GPU at once."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engines.device import Host
from engines.plan import plan_pipeline
from schemas.settings import Settings
from tests.integration.a_runner import Mean, spec_of
from workers.stages import LoadedPipeline


class Queueing(Mean):
    in_flight = 2

    def most_rows(self, row_bytes: int) -> int:
        return 4

    def start(self, inputs: Mapping[str, Any], room: int = 0) -> Callable[[], dict[str, Any]]:
        raise NotImplementedError


@pytest.mark.parametrize(("batch_s", "batches"), [(1.0, 2), (0.02, 2), (0.01, 5), (0.001, 8)])
def test_more_batches_of_short_ones_are_a_step(batch_s: float, batches: int) -> None:
    session = Queueing()
    plan = plan_pipeline(spec_of(), {"mean": session.spec})
    pipeline = LoadedPipeline(plan, lambda stage: True, {"infer": session}, Host(Settings()))
    [stage] = [each for each in plan.spec.operators if each.model]
    assert pipeline.most_batches(stage) == 2  # nothing was measured
    counts = plan.operators[stage.name].counts
    counts.times += [(3, 4, 1e-9), (4, 4, 2 * batch_s), (4, 4, batch_s)]
    assert len(pipeline.counts(stage.name).times) == 3
    assert pipeline.most_batches(stage) == batches
    assert pipeline.counts(stage.name).times == []
    assert pipeline.most_batches(stage) == batches


def test_a_session_that_queues_nothing_gets_one_batch() -> None:
    session = Mean()
    plan = plan_pipeline(spec_of(), {"mean": session.spec})
    pipeline = LoadedPipeline(plan, lambda stage: True, {"infer": session}, Host(Settings()))
    [stage] = [each for each in plan.spec.operators if each.model]
    plan.operators[stage.name].counts.times.append((4, 4, 0.001))
    pipeline.counts(stage.name)
    assert pipeline.most_batches(stage) == 1
