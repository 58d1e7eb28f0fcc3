"""Canaries of real models on a GPU: honest workers keep their card; one that lies is found, its parts are done again.

`TEST_DEVICE=cpu` runs them on the host.
"""

import asyncio
import functools
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engines.operators.infer import Infer
from engines.part import Part
from pipelines.broker import Broker
from pipelines.cards import ask_to_readmit, card_records, checked, quarantine
from pipelines.client import Client
from pipelines.registry import builtin_pipeline
from pipelines.status import running_statuses
from schemas.cards import CardState, Reason
from schemas.pipeline import PipelineSpec
from schemas.results import Done
from tests.cards import quarantined, until, until_state
from tests.clips import Clip, make_clip, real_clip
from tests.fleet import Fleet
from tests.simulated import models_of
from workers import canaries as of_workers
from workers import trust
from workers.definitions import register
from workers.forkserver import Entry
from workers.options import WorkerOptions
from workers.process import start_worker

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
DEVICE = os.environ.get("TEST_DEVICE", "cuda:0")
MINUTES, PACE_S = 0.01, 0.04
ROUNDS = 8  # of canaries of each worker
HONEST = ("fingerprint", "scenes", "upscale2x")
CLIP = Clip(frames=3000, rate=5, gop=5, size=(144, 256))  # 600 segments of a second


def watched(folder: Path, apart: bool = False) -> Entry:
    """What a worker process runs that computes canaries all the time, and notes each round in a file with its name.

    It answers wrongly while a file of its name with the suffix `.lies` is in the folder, and notes rounds in one with
    the suffix `.found` then. `apart`: each worker is a card of its own, although they share a GPU, and each step takes
    `PACE_S` longer.
    """
    return functools.partial(_start_watched, folder, apart)


def _start_watched(folder: Path, apart: bool, options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    lies, true_round = folder / f"{options.name}.lies", of_workers.Canaries.round

    async def noted(self: of_workers.Canaries) -> str:
        notes = lies.with_suffix(".found" if lies.exists() else ".rounds")
        why = await true_round(self)
        with notes.open("a") as file:
            file.write(f"{why}\n")
        return why

    for name in ("run", "run_full"):
        setattr(Infer, name, _answering(getattr(Infer, name), lies, PACE_S if apart else 0.0))
    of_workers.Canaries.round = noted  # type: ignore[method-assign]
    of_workers.SHARE = 1  # type: ignore[attr-defined]
    if apart:
        trust.card_name = lambda uuid, worker: worker  # type: ignore[attr-defined]
    start_worker(options, heartbeats)


def _answering(true: Any, lies: Path, pace_s: float) -> Any:
    """A method of `Infer` that reverses what the model says while a file is there."""

    def run(self: Infer, *given: Any) -> list[Any]:
        time.sleep(pace_s)
        made: Sequence[Any] = true(self, *given)
        if not lies.exists():
            return list(made)
        return [
            part.with_arrays({**part.arrays, "descriptor": part.array("descriptor")[:, ::-1].copy()})
            if isinstance(part, Part) and "descriptor" in part.arrays
            else part
            for part in made
        ]

    return run


def rounds(folder: Path, worker: int) -> list[str]:
    """What the rounds of an honest worker said so far."""
    path = folder / f"test-{worker}.rounds"
    return path.read_text().splitlines() if path.exists() else []


async def rounds_more(folder: Path, count: int) -> None:
    """Wait until both workers had so many rounds more."""
    before = [len(rounds(folder, worker)) for worker in (0, 1)]

    async def holds() -> bool:
        return all(len(rounds(folder, worker)) >= before[worker] + count for worker in (0, 1))

    await until(holds, timeout_s=120.0)


async def job_after_job(fleet: Fleet, out: Path) -> None:
    """Work for the fleet until this is cancelled."""
    for number in range(10_000):
        spec = builtin_pipeline(HONEST[number % len(HONEST)])
        (outcome,) = await fleet.run_async(spec, [real_clip("bikes")], out / str(number))
        assert outcome.ok, outcome.error


@pytest.mark.parametrize("rounded", [{}, {"tf32": True}, {"precision": "fp16"}], ids=["float32", "tf32", "float16"])
def test_no_honest_worker_is_quarantined_also_when_its_models_are_loaded_anew(
    tmp_path: Path, rounded: dict[str, Any]
) -> None:
    async def run(fleet: Fleet) -> None:
        async with Broker.connected(fleet.settings, name="test") as broker:
            for name in HONEST:
                await register(broker, fleet.settings, builtin_pipeline(name), models_of(builtin_pipeline(name)))
            work = asyncio.create_task(job_after_job(fleet, tmp_path / "out"))
            await rounds_more(tmp_path, ROUNDS)
            await asyncio.to_thread(fleet.kill, 0)
            await rounds_more(tmp_path, ROUNDS)
            assert await quarantined(broker) == set()
            workers, _ = await running_statuses(broker)
            card = next(str(each["card"]) for each in workers if each["worker"] == "test-1")
            await quarantine(broker, card, Reason.ORDER, "its models shall be loaded anew", 0)
            await until_state(broker, "test-1", "quarantined")
            await ask_to_readmit(broker, card)
            record = await checked(broker, card, 60.0)
            assert record is not None
            assert record.state is CardState.TRUSTED, record.why
            await rounds_more(tmp_path, ROUNDS)
            assert [record.reason for record in await card_records(broker)] == [Reason.ORDER]
            assert await quarantined(broker) == set()
            assert not work.done(), work.exception()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    given = {"canary_minutes": MINUTES, "tuning_s": 0.0, "entry": watched(tmp_path)} | rounded
    with Fleet([("all",)] * 2, tmp_path / "cache", devices=[DEVICE], **given) as fleet:
        asyncio.run(run(fleet))
    answers = [why for worker in (0, 1) for why in rounds(tmp_path, worker)]
    assert len(answers) >= 5 * ROUNDS
    assert set(answers) == {""}


def short_segments() -> PipelineSpec:
    """`fingerprint` whose segments have a second and whose batches have two, so that a job takes a while."""
    spec = builtin_pipeline("fingerprint")
    stages = [each.model_copy(update={"max_batch": 2}) if each.name == "infer" else each for each in spec.stage]
    return spec.model_copy(update={"segment_s": 1.0, "stage": tuple(stages)})


def test_a_worker_that_lies_is_found_within_two_canaries_and_the_result_equals_a_clean_one(tmp_path: Path) -> None:
    media, spec = make_clip(tmp_path, CLIP).read_bytes(), short_segments()

    async def run(fleet: Fleet, folder: Path, liar: str) -> tuple[Done, set[str]]:
        async with Broker.connected(fleet.settings, name="test") as broker:
            known = await register(broker, fleet.settings, spec, models_of(spec))
            await rounds_more(folder, 1)
            job = await Client(broker).submit(known, media, job="job")
            if liar:
                (folder / f"{liar}.lies").touch()
            return await job.done(), await quarantined(broker)

    found = {}
    for name, liar in (("clean", ""), ("liar", "test-1")):
        folder = tmp_path / name
        folder.mkdir()
        entry = watched(folder, apart=True)
        given = {"canary_minutes": MINUTES, "tuning_s": 0.0, "entry": entry}
        with Fleet([("all",)] * 2, tmp_path / "cache", devices=[DEVICE], **given) as fleet:
            found[name] = asyncio.run(run(fleet, folder, liar))
    (clean, none), (done, out) = found["clean"], found["liar"]
    assert (none, out) == (set(), {"test-1"})
    wrong = (tmp_path / "liar" / "test-1.found").read_text().splitlines()
    assert 1 <= len(wrong) <= 2
    assert wrong[-1] == "it answered the canary of fingerprint otherwise than before"
    assert (done.frames, done.failures, done.lost, done.segments) == (3000, (), 0, clean.segments)
    assert done.digest == clean.digest
