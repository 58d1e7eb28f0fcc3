"""Law 5 against strangers: whatever bytes are on a subject or in a bucket, workers go on and the next job is done."""

import asyncio
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.dead import letters
from pipelines.inbox import Away
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from pipelines.topology import ensure_topology
from schemas.errors import BrokerError, MessageError
from schemas.jobs import JobRef, Priority
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from schemas.subjects import HEADER_ID, HEADER_TYPE, SPLIT
from tests.clips import still
from tests.fleet import Fleet
from tests.poison_bodies import random_body
from tests.rig import Rig
from workers.definitions import find_models, register

AT_ONCE = 64  # bodies between two good jobs
HANGS_S = 60.0
BUCKETS = ("jobs", "rigs", "attempts", "pipelines")
KEYS = {
    "jobs": ("main.poison", "cancelled.main.poison", "x"),
    "rigs": ("worker.poison", "x"),
    "attempts": ("begun.poison", "failed.RIGFLOW_WORK_fingerprint_decode.1.1"),
    "pipelines": ("name.poison", "revision.poison", "revision.0123456789abcdef"),
}


class Storm:
    """Sends bodies, and sees what becomes of them."""

    def __init__(self, broker: Broker, spec: PipelineSpec, dice: random.Random) -> None:
        self.broker = broker
        self.spec = spec
        self.dice = dice
        self.unreadable = 0
        self.sent: Counter[str] = Counter()

    async def send(self, number: int) -> None:
        """One body on one subject, or one value in one bucket."""
        names = self.broker.names
        kind, body, headers = random_body(self.dice, self.spec.name, self.spec.revision)
        if BUCKETS and self.dice.random() < 0.15:
            bucket = self.dice.choice(BUCKETS)
            kind = f"KV {bucket}"
            await self.broker.put(getattr(names, bucket), self.dice.choice(KEYS[bucket]), body[: self.broker.max_body])
        elif kind == "results":
            subject = f"{names.prefix}.results.main.{self.spec.name}.poison-{number % 7}"
            await self._store(subject, body, headers, number)
        elif kind == "media":
            await self._store(names.media("main", self.spec.name), body, headers, number)
        else:
            subject = names.work(self.spec.name, kind, self.dice.choice(list(Priority)))
            if await self._store(subject, body, headers, number) and not _readable(body):
                self.unreadable += 1
        self.sent[kind] += 1

    async def _store(self, subject: str, body: bytes, headers: dict[str, str], number: int) -> bool:
        """Whether the broker took it: some headers it does not."""
        try:
            await self.broker.store(subject, body, {**headers, HEADER_ID: f"poison-{number}"})
        except (BrokerError, Away, ValueError, UnicodeError):
            return False
        return True

    async def good_job(self, job: str) -> None:
        """An honest image goes through while all that was sent is worked off."""
        publisher = Publisher(self.broker, self.spec, "main", Priority.INTERACTIVE)
        await publisher.publish(publisher.ref(job), "image", [Input(still("png"), "a.png")])
        async with asyncio.timeout(HANGS_S):
            while not await self.has_results(publisher.ref(job)):
                await asyncio.sleep(0.02)

    async def has_results(self, job: JobRef) -> bool:
        names = self.broker.names
        return any(
            [
                stored.headers.get(HEADER_TYPE) == "part"
                async for stored in self.broker.read(names.results_stream, names.results(job))
            ]
        )

    async def worked_off(self) -> None:
        """Until every queue of the pipeline is empty."""
        names = self.broker.names
        stages = [stage.name for stage in self.spec.stage]
        streams = [
            names.media_stream(self.spec.name),
            *(names.work_stream(self.spec.name, each) for each in (*stages, "collect")),
        ]
        async with asyncio.timeout(HANGS_S):
            while True:
                infos = [await self.broker.api(f"STREAM.INFO.{stream}") for stream in streams]
                left = {
                    info["config"]["name"]: info["state"]["messages"] for info in infos if info["state"]["messages"]
                }
                if not left:
                    return
                await asyncio.sleep(0.1)


def _readable(body: bytes) -> bool:
    try:
        decode(body)
    except MessageError:
        return False
    return True


async def storm(fleet: Fleet, count: int, seed: int) -> Storm:
    broker = await Broker.connect(fleet.settings)
    spec = builtin_pipeline("fingerprint")
    await ensure_topology(broker, fleet.settings, [spec])
    spec = await register(broker, fleet.settings, spec, find_models(spec, None))
    storming = Storm(broker, spec, random.Random(seed))
    for number in range(count):
        await storming.send(number)
        if number % AT_ONCE == AT_ONCE - 1:
            await storming.good_job(f"good-{number}")
    await storming.worked_off()
    await storming.good_job("good-last")
    found = [letter.failure async for letter in letters(broker)]
    unreadable = [
        failure for failure in found if failure.key.job.id.startswith("unreadable-") and failure.stage != SPLIT
    ]
    print(f"\n{dict(storming.sent)}, {storming.unreadable} unreadable ones on work subjects, {len(found)} dead letters")
    for reason, times in Counter(re.sub(r"[\d.]+", "N", failure.error)[:90] for failure in found).most_common(25):
        print(f"  {times:5} {reason}")
    for failure in found:
        if failure.detail:
            print(failure.stage, failure.error, failure.detail)
    assert all(failure.error.strip() for failure in found)
    assert not [failure for failure in found if failure.detail], "an error that rigflow does not know"
    assert len(unreadable) >= storming.unreadable
    await broker.close()
    return storming


@pytest.mark.parametrize(
    "count", [256, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1700)])], ids=str
)
def test_strange_bodies_freeze_no_worker(count: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    began_s = time.monotonic()
    with Fleet((), tmp_path / "cache") as fleet, Rig(fleet, tmp_path, ack_wait_s=10.0) as rig:
        rig.until("event=serving")
        asyncio.run(storm(fleet, count, seed))
        deaths = re.findall(r"event=(?:died|stuck|silent|ended).*", rig.output)
    print(f"bodies, seed {seed}: {count} in {time.monotonic() - began_s:.0f} s, {len(deaths)} deaths of workers")
    assert not deaths
