"""A card that answers wrongly from a moment on: it is quarantined by canaries, and its parts are done again."""

import asyncio
import functools
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import rigflow_simulated

from benchmarks.fleet import simulated
from engines.part import Array
from pipelines.broker import Broker
from pipelines.cards import canaries
from pipelines.client import Client
from schemas.errors import ExitCode
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.results import Done
from tests.cards import lines, quarantined, until, until_state
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.fleet import Fleet, Silent
from tests.simulated import models_of
from workers import canaries as of_workers
from workers.definitions import register
from workers.forkserver import Entry
from workers.inputs import JobOutcome
from workers.options import WorkerOptions
from workers.process import start_worker

SPEC = simulated()
CLIP = Clip(frames=400, gop=5)  # 80 segments of 5 frames
MINUTES = 0.01


def lying(folder: Path) -> Entry:
    """What a worker process runs whose model answers wrongly while a file with the worker's name is in a folder.

    While there is one with the suffix `.blind` it computes no canaries.
    """
    return functools.partial(_start_lying, folder)


def _start_lying(folder: Path, options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    true, flag = rigflow_simulated.SimulatedSession.run, folder / options.name
    true_round = of_workers.Canaries.round

    def run(self: rigflow_simulated.SimulatedSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
        answers = true(self, inputs)
        return {name: each ^ 1 for name, each in answers.items()} if flag.exists() else answers

    async def in_sight(self: of_workers.Canaries) -> str:
        return "" if flag.with_suffix(".blind").exists() else await true_round(self)

    rigflow_simulated.SimulatedSession.run = run  # type: ignore[method-assign]
    of_workers.Canaries.round = in_sight  # type: ignore[method-assign]
    of_workers.SHARE = 1  # type: ignore[attr-defined]
    start_worker(options, heartbeats)


async def answered(broker: Broker, count: int) -> None:
    """Wait until so many cards have answered a canary."""

    async def holds() -> bool:
        return len({each.card for each in await canaries(broker) if each.good_ms and each.last}) >= count

    await until(holds)


async def ready(fleet: Fleet, broker: Broker, count: int) -> PipelineSpec:
    spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
    for number in range(count):
        await until_state(broker, f"test-{number}", "idle")
    await answered(broker, count)
    return spec


def clean_run(tmp_path: Path, media: bytes) -> Done:
    async def run(fleet: Fleet) -> Done:
        async with Broker.connected(fleet.settings, name="test") as broker:
            spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
            return await (await Client(broker).submit(spec, media, job="job")).done()

    with Fleet([("all",)], tmp_path / "clean", pace_ms=0.0, canary_minutes=0.0) as fleet:
        return asyncio.run(run(fleet))


def test_a_card_that_lies_is_quarantined_and_the_result_equals_that_of_a_clean_fleet(tmp_path: Path) -> None:
    media = make_clip(tmp_path, CLIP).read_bytes()
    liars = tmp_path / "liars"
    liars.mkdir()

    async def run(fleet: Fleet) -> tuple[Done, set[str]]:
        async with Broker.connected(fleet.settings, name="test") as broker:
            spec = await ready(fleet, broker, 3)
            job = await Client(broker).submit(spec, media, job="job")
            (liars / "test-1").touch()
            done = await job.done()
            return done, await quarantined(broker)

    given = {"canary_minutes": MINUTES, "entry": lying(liars)}
    with Fleet([("all",)] * 3, tmp_path / "cache", pace_ms=20.0, **given) as fleet:
        done, out = asyncio.run(run(fleet))
    expected = clean_run(tmp_path, media)
    assert out == {"test-1"}
    assert (done.frames, done.failures, done.lost, done.segments) == (400, (), 0, expected.segments)
    assert done.digest == expected.digest


def test_a_card_that_lies_alone_waits_for_another_one(tmp_path: Path) -> None:
    media = make_clip(tmp_path, Clip(frames=150, gop=5)).read_bytes()
    liars = tmp_path / "liars"
    liars.mkdir()

    async def run(fleet: Fleet) -> tuple[Done, dict[str, str]]:
        async with Broker.connected(fleet.settings, name="test") as broker:
            spec = await ready(fleet, broker, 1)
            (liars / "test-0").touch()
            job = await Client(broker).submit(spec, media, job="job")
            await until_state(broker, "test-0", "quarantined")
            fleet.add()
            done = await job.done()
            whys = {card: line.why for card, line in (await lines(broker)).items()}
            at = ("--nats", fleet.settings.nats)
            refused = await asyncio.to_thread(rigflow, "cards", "readmit", "test-0", *at)
            assert refused.returncode == ExitCode.SOME_FAILED
            assert refused.stdout == f"test-0: stays quarantined, {whys['test-0']}\n"
            (liars / "test-0").unlink()
            back = await asyncio.to_thread(rigflow, "cards", "readmit", "test-0", *at)
            assert (back.returncode, back.stdout) == (ExitCode.OK, "test-0: works again\n")
            return done, whys

    given = {"canary_minutes": MINUTES, "entry": lying(liars)}
    with Fleet([("all",)], tmp_path / "cache", pace_ms=20.0, **given) as fleet:
        done, whys = asyncio.run(run(fleet))
    assert whys["test-0"] == "it answered the canary of simulated otherwise than before"
    assert done.failures == ()
    assert done.digest == clean_run(tmp_path, media).digest


class KillsTheLiar(Silent):
    """Kills worker 1 after twenty parts, and another process takes its place, which computes canaries."""

    def __init__(self, fleet: Fleet, blind: Path) -> None:
        super().__init__()
        self._fleet, self._blind = fleet, blind

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        if self.parts == 20:
            self._blind.unlink()
            self._fleet.kill(1)


@pytest.mark.slow
def test_what_a_killed_liar_did_is_not_in_the_result(tmp_path: Path) -> None:
    """Its inputs are gone with its process: the command that waits for the job begins it again."""
    clip = make_clip(tmp_path, CLIP)
    liars = tmp_path / "liars"
    liars.mkdir()

    async def run(fleet: Fleet) -> tuple[JobOutcome, set[str], list[str]]:
        async with Broker.connected(fleet.settings, name="test") as broker:
            await ready(fleet, broker, 2)
            (liars / "test-1.blind").touch()
            (liars / "test-1").touch()
            listener = KillsTheLiar(fleet, liars / "test-1.blind")
            (outcome,) = await fleet.run_async(SPEC, [clip], tmp_path / "out", listener)
            return outcome, await quarantined(broker), listener.events

    given = {"canary_minutes": MINUTES, "entry": lying(liars)}
    with Fleet([("all",)] * 2, tmp_path / "cache", pace_ms=80.0, **given) as fleet:
        outcome, out, events = asyncio.run(run(fleet))
    assert outcome.done is not None, (outcome.error, events)
    assert outcome.done.digest == clean_run(tmp_path, clip.read_bytes()).digest
    assert out == {"test-1"}
    assert any("begun again" in event for event in events), events
