"""A random walk of people and accidents on a small fleet: each job ends once, with its own answer, and leaves nothing.

People publish by NATS alone: new media, the same media again, other media under an id that is taken, cancels, ends of
media that are cut off. Accidents: workers and the broker are killed or stopped for longer than a lease.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pipelines.broker import Broker
from pipelines.inbox import Away
from pipelines.job_records import all_manifests
from pipelines.registry import builtin_pipeline
from pipelines.sweep import sweep
from schemas.errors import BrokerError
from schemas.messages import decode
from schemas.results import Done
from schemas.subjects import HEADER_ID, HEADER_JOB, HEADER_TYPE
from tests.clips import Clip, generated, still
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models, register

T = TypeVar("T")
ACK_WAIT_S = 3.0
PIPELINE = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 0.4})
CLIPS = (Clip(frames=75), Clip(frames=50, container="mkv", open_gop=True, b_frames=3), Clip(frames=30, container="ts"))


class Walk:
    """Sends jobs and hurts the fleet; remembers what each job may come to."""

    def __init__(self, fleet: Fleet, chance: random.Random, contents: list[bytes]) -> None:
        self.did: Counter[str] = Counter()
        self.sent: dict[str, list[int]] = {}  # by job: which contents, in the order in which the broker took them
        self.cancelled: set[str] = set()
        self.expected: list[tuple[str, int, int]] = []  # of each content: digest, frames, lost
        self._fleet, self._chance, self._contents = fleet, chance, contents
        self._messages = 0

    async def calm(self, broker: Broker) -> None:
        """What each content comes to when nothing happens."""
        for number in range(len(self._contents)):
            await self._send(broker, f"calm-{number}", number)
        dones = await ended(broker, len(self._contents))
        for number in range(len(self._contents)):
            [done] = dones[f"calm-{number}"]
            self.expected.append((done.digest, done.frames, done.lost))

    async def act(self, broker: Broker) -> None:
        """Do something."""
        acts: dict[Callable[[Broker], Awaitable[None]], int] = {
            self._new: 8,
            self._again: 3,
            self._other: 2,
            self._rivals: 2,
            self._cancel: 2,
            self._kill_worker: 3,
            self._kill_broker: 1,
            self._stop_worker: 1,
            self._stop_broker: 1,
        }
        undone = [act for act in list(acts)[:-2] if not self.did[act.__name__.strip("_")]]
        act = self._chance.choice(undone) if undone else self._chance.choices(list(acts), list(acts.values()))[0]
        self.did[act.__name__.strip("_")] += 1
        await act(broker)
        await asyncio.sleep(self._chance.uniform(0.0, 0.6))

    async def _new(self, broker: Broker) -> None:
        await self._send(broker, f"walk-{len(self.sent)}", self._chance.randrange(len(self._contents)))

    async def _again(self, broker: Broker) -> None:
        job = self._chance.choice(list(self.sent))
        await self._send(broker, job, self.sent[job][0])

    async def _other(self, broker: Broker) -> None:
        await self._send(broker, self._chance.choice(list(self.sent)), self._chance.randrange(len(self._contents)))

    async def _rivals(self, broker: Broker) -> None:
        job = f"walk-{len(self.sent)}"
        await asyncio.gather(*(self._send(broker, job, content) for content in (0, 1)))

    async def _cancel(self, broker: Broker) -> None:
        job = self._chance.choice(list(self.sent)[-3:])
        self.cancelled.add(job)
        await self._store(broker, broker.names.cancel("main", PIPELINE.name, job), b"", {})

    async def _send(self, broker: Broker, job: str, content: int) -> None:
        self.sent.setdefault(job, []).append(content)
        await self._store(broker, broker.names.media("main", PIPELINE.name), self._contents[content], {HEADER_JOB: job})

    async def _store(self, broker: Broker, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """As a publisher does that knows the laws: with an id, again until the broker has it."""
        self._messages += 1
        named = {**headers, HEADER_ID: f"walk-{self._messages}"}
        await patiently(lambda: broker.store(subject, body, named))

    async def _kill_worker(self, _: Broker) -> None:
        await asyncio.to_thread(self._fleet.kill, self._chance.randrange(len(self._fleet.workers)))

    async def _stop_worker(self, _: Broker) -> None:
        await self._stop(self._chance.choice(self._fleet.workers).pid)

    async def _kill_broker(self, _: Broker) -> None:
        self._fleet.server.kill()
        await asyncio.sleep(self._chance.choice((0.0, 0.5)))
        await asyncio.to_thread(self._fleet.server.restart)

    async def _stop_broker(self, _: Broker) -> None:
        await self._stop(self._fleet.server.pid)

    async def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self._chance.choice((0.5, 1.5)) * ACK_WAIT_S)
        os.kill(pid, signal.SIGCONT)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call that is made again while the broker is away."""
    while True:
        try:
            return await call()
        except (BrokerError, Away):
            await asyncio.sleep(0.1)


async def ended(broker: Broker, jobs: int) -> dict[str, list[Done]]:
    """Wait until so many jobs are over and all work is settled: the Done of each that the broker keeps."""

    async def is_quiet() -> bool:
        manifests = await all_manifests(broker)
        over = len(manifests) >= jobs and all(each.state.ended for each in manifests)
        return over and not await queued(broker)

    async def stored() -> dict[str, list[Done]]:
        dones: defaultdict[str, list[Done]] = defaultdict(list)
        async for each in broker.read(broker.names.results_stream):
            if each.headers.get(HEADER_TYPE) == "done":
                done, _ = decode(each.body)
                assert isinstance(done, Done)
                dones[done.job.id].append(done)
        return dones

    while not await patiently(is_quiet):
        await asyncio.sleep(0.2)
    return await patiently(stored)


async def queued(broker: Broker) -> list[str]:
    """Queues with messages that nobody has settled."""
    streams = [each for each in (await broker.api("STREAM.LIST"))["streams"] if each["state"]["messages"]]
    names = [each["config"]["name"] for each in streams]
    return [name for name in names if name == broker.names.cancel_stream or "_WORK_" in name or "_MEDIA_" in name]


async def left(broker: Broker) -> list[str]:
    """What a sweep leaves in the broker beside results and manifests."""
    await sweep(broker, age_s=0.0, entire=True)
    names = broker.names
    attempts = await broker.items(names.attempts)
    found = [f"attempt {key}" for key, body in attempts.items() if key.startswith("begun.") and json.loads(body)]
    found += [f"object {stored.subject}" async for stored in broker.read(f"OBJ_{names.blobs}")]
    return found + await queued(broker)


async def walk(fleet: Fleet, chance: random.Random, acts: int, contents: list[bytes]) -> str:
    """All of it; what is to be printed."""
    broker = await Broker.connect(fleet.settings)
    await register(broker, fleet.settings, PIPELINE, find_models(PIPELINE, None))
    steps = Walk(fleet, chance, contents)
    await steps.calm(broker)
    for _ in range(acts):
        await steps.act(broker)
    dones, failed = await ended(broker, len(steps.sent)), list[str]()
    for job, contents_sent in steps.sent.items():
        assert len(dones[job]) == 1, f"{job}: {len(dones[job])} ends"
        [done] = dones[job]
        answers = [steps.expected[content] for content in contents_sent]
        if done.cancelled:
            assert job in steps.cancelled, f"{job}: nobody cancelled it"
        elif done.failures:
            failed.append(f"{job}: {'; '.join(done.failures)}")
        else:
            assert (done.digest, done.frames, done.lost) in answers, f"{job}: an answer to nothing that was sent"
    assert not failed or steps.did["kill_worker"] > 2, failed  # a segment in whose work three workers die is given up
    remains = await patiently(lambda: left(broker))
    assert not remains, remains
    await broker.close()
    over = sum(done.cancelled for [done] in dones.values())
    return f"{dict(steps.did)}; {len(steps.sent)} jobs, {over} of them cancelled; failed: {failed}"


@pytest.mark.parametrize("acts", [7, pytest.param(250, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=str)
def test_each_job_ends_once_with_its_own_answer(acts: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    contents = [*(generated(clip).read_bytes() for clip in CLIPS), still("png")]
    began_s = time.monotonic()
    with Fleet(ONE_WORKER * 2, tmp_path / "cache", ack_wait_s=ACK_WAIT_S) as fleet:
        output = asyncio.run(walk(fleet, random.Random(seed), acts, contents))
    print(f"\nwalk, seed {seed}, {time.monotonic() - began_s:.0f} s: {output}")
