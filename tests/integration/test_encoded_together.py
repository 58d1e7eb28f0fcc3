"""Parts whose encoding takes less than a trip to the computing thread are encoded together, in the trip before."""

from collections.abc import Sequence
from typing import Any

import pytest

from engines.media.medium import Input
from engines.part import Part, Tick
from schemas.errors import MediaError
from schemas.results import Failure
from schemas.settings import Settings
from tests.clips import still
from tests.integration.a_runner import Trial, a_trial, spec_of
from tests.integration.queues import eventually
from workers.computing import ComputingThread
from workers.stages import LoadedPipeline

PARTS = 6


async def has_results(trial: Trial, job: str, kind: str) -> bool:
    return len(await trial.results(job, kind)) == 1


@pytest.mark.parametrize(("encode_s", "together"), [(1e-5, PARTS), (1.0, 1)])
async def test_short_parts_are_encoded_in_one_step_and_each_has_its_own_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, encode_s: float, together: int
) -> None:
    encode, encode_all, steps = LoadedPipeline.encode, LoadedPipeline.encode_all, []

    def failing(pipeline: LoadedPipeline, part: Part, tick: Tick) -> bytes:
        if part.meta.key.job.id == "bad":
            raise MediaError("it cannot be encoded")
        return encode(pipeline, part, tick)

    def counted(pipeline: LoadedPipeline, parts: Sequence[Part], tick: Tick) -> list[bytes | Exception]:
        steps.append(len(parts))
        made = encode_all(pipeline, parts, tick)
        pipeline.encode_s = encode_s
        return made

    run_step, trips = ComputingThread.run_step, []

    async def traced(thread: ComputingThread, pipeline: str, stage: str, *step: Any) -> Any:
        if stage != "decode":
            trips.append(stage)
        return await run_step(thread, pipeline, stage, *step)

    monkeypatch.setattr(ComputingThread, "run_step", traced)
    monkeypatch.setattr(LoadedPipeline, "encode", failing)
    monkeypatch.setattr(LoadedPipeline, "encode_all", counted)
    settings = settings.model_copy(update={"ack_wait_s": 30.0})
    async with a_trial(settings, spec_of(max_batch=PARTS, max_delay_ms=10_000.0)) as trial:
        trial.pipeline.encode_s = encode_s
        jobs = [*(f"job-{number}" for number in range(PARTS - 1)), "bad"]
        for seed, job in enumerate(jobs):
            await trial.publisher.publish(trial.ref(job), "image", [Input(still("png", seed=seed), f"{job}.png")])
        await eventually(lambda: sum(steps) == PARTS)
        for job in jobs:
            kind = "failure" if job == "bad" else "part"
            await eventually(lambda job=job, kind=kind: has_results(trial, job, kind))
        failures = await trial.results("bad", "failure")
        counts = trial.runner.meter.stages
    assert max(steps) == together
    assert set(trips) == ({"infer"} if together > 1 else {"infer", "encode"}), "short ones are part of the step before"
    assert (counts["p", "infer"].parts, counts["p", "encode"].tasks, counts["p", "encode"].parts) == (PARTS, PARTS, 5)
    assert sum(counts["p", "encode"].steps) == len(steps)
    assert sum(counts["p", "infer"].steps) == trips.count("infer")
    [failure] = failures
    assert isinstance(failure, Failure)
    assert failure.error == "it cannot be encoded"
    assert [mark.partition("@")[0] for mark in failure.cards] == ["worker"]
