"""Laws 1 to 3 in a storm: kill -9 of workers, supervisors and the broker, again and again, during jobs of all kinds."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from pipelines.answers import headers_of
from pipelines.broker import Broker
from pipelines.dead import letters
from pipelines.sweep import sweep
from schemas.errors import BrokerError
from schemas.parts import PartMeta
from schemas.results import Failure
from schemas.subjects import HEADER_ID, HEADER_TYPE
from tests.faults.mix import Kind, all_kinds, few_kinds, results_of
from tests.fleet import Fleet, Silent, redeliveries
from tests.rig import Rig, alive, eventually
from workers.inputs import JobOutcome

AT_ONCE = 6  # jobs
REST_S = 120.0  # in which what was delivered again at the end is computed
PATIENCE_S = 8.0  # without a part for so long, the storm goes on all the same
VICTIMS = {  # and how likely each is
    "worker": 14,
    "server": 2,
    "supervisor": 4,
    "stopped worker": 4,
    "stopped supervisor": 2,
    "told supervisor": 2,
}
SETTINGS = {"ack_wait_s": 3.0, "pace_ms": 3.0}


class ProgressListener(Silent):
    """Counts how often a collector saw each part."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, int, int]] = Counter()

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        self.seen[job, meta.key.segment, meta.key.part] += 1


class Observer:
    """Hears every result at the moment it is published, repeats too."""

    def __init__(self) -> None:
        self.published: Counter[str] = Counter()

    async def open(self, broker: Broker) -> None:
        await broker.connection.nc.subscribe(f"{broker.names.prefix}.results.>", cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        headers = headers_of(message)
        if headers.get(HEADER_TYPE) == "part":
            self.published[headers[HEADER_ID]] += 1

    @property
    def repeats(self) -> int:
        return sum(count - 1 for count in self.published.values())


class Storm:
    """Rigs on a broker, and the one who kills them; what dies as a whole is started again, as a system's init would."""

    def __init__(self, fleet: Fleet, folder: Path, rigs: int, workers: int, chance: random.Random) -> None:
        self.fleet = fleet
        self.kills: Counter[str] = Counter()
        self.struck: list[tuple[float, str]] = []  # when, and whom
        self._folder = folder
        self._workers = workers
        self._chance = chance
        self.rigs = [self._rig(number) for number in range(rigs)]

    def _rig(self, number: int) -> Rig:
        return Rig(self.fleet, self._folder, f"r{number}", self._workers, **SETTINGS)

    def start(self) -> None:
        for rig in self.rigs:
            rig.__enter__()
        for rig in self.rigs:
            rig.until_ready()

    def stop(self) -> None:
        for rig in self.rigs:
            rig.__exit__(None, None, None)

    def revive(self) -> None:
        for number, rig in enumerate(self.rigs):
            if rig.process.poll() is not None:
                rig.__exit__(None, None, None)
                self.rigs[number] = self._rig(number)
                self.rigs[number].__enter__()

    def strike(self) -> None:
        """Kill or stop one of each, then at random; start again what nobody else would."""
        self.revive()
        unhurt = [victim for victim in VICTIMS if victim not in self.kills]
        victim = unhurt[0] if unhurt else self._chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        if victim == "server":
            self.fleet.server.kill()
            time.sleep(self._chance.choice((0.0, 0.5)))
            self.fleet.server.restart()
        elif victim.endswith("supervisor"):
            supervisor = self._chance.choice(self.rigs).process
            if victim == "stopped supervisor":
                self._pause(supervisor.pid)
            else:
                supervisor.send_signal(signal.SIGTERM if victim.startswith("told") else signal.SIGKILL)
                supervisor.wait()  # so that it is started again now, and not after the next blow
        else:
            pids = [pid for rig in self.rigs for pid in rig.pids if alive(pid)]
            if not pids:
                return
            if victim == "stopped worker":
                self._pause(self._chance.choice(pids))
            else:
                os.kill(self._chance.choice(pids), signal.SIGKILL)
        self.kills[victim] += 1
        self.struck.append((time.time(), victim))
        self.revive()

    def _pause(self, pid: int) -> None:
        """Stop a process for longer than a lease, as a machine that swaps does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._chance.choice((0.5, 1.5)) * SETTINGS["ack_wait_s"])
            os.kill(pid, signal.SIGCONT)

    def story(self, failure: Failure) -> str:
        """What befell each attempt at a dead letter: seconds until the next blow after it began."""
        reported = []
        for attempt in failure.attempts:
            blow_s, victim = next(((at_s, whom) for at_s, whom in self.struck if at_s > attempt.at_s), (0.0, "nobody"))
            reported.append(f"{attempt.worker} {attempt.ended} then after {blow_s - attempt.at_s:.2f} s {victim}")
        return f"\n  {failure.key.job.pipeline} segment {failure.key.segment}: {'; '.join(reported)}"


async def rage(
    storm: Storm, listener: ProgressListener, kills: int, chance: random.Random, until: asyncio.Event
) -> None:
    """Strike again and again, each time after work has moved, until there were enough kills and jobs."""
    while storm.kills.total() < kills or not until.is_set():
        before, since = listener.parts, time.monotonic()
        while listener.parts == before and time.monotonic() - since < PATIENCE_S:
            await asyncio.sleep(chance.uniform(0.01, 0.1))
            if storm.kills.total() >= kills and until.is_set():
                return
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        if storm.kills.total() < kills:
            await asyncio.to_thread(storm.strike)
        else:
            await asyncio.to_thread(storm.revive)


async def one_job(fleet: Fleet, kind: Kind, number: int, folder: Path, listener: ProgressListener) -> JobOutcome:
    """Run a job of a kind on copies of its inputs, so that it has an id of its own."""
    own = folder / f"job{number}"
    own.mkdir()
    inputs = [Path(shutil.copy(path, own)) for path in kind.inputs]
    while True:
        try:
            (outcome,) = await fleet.run_async(kind.spec, inputs, own / "out", listener)
            return outcome
        except BrokerError:  # it was away when the job was to begin
            await asyncio.sleep(0.2)


async def weather(storm: Storm, mix: list[Kind], folder: Path, jobs: int, kills: int, chance: random.Random) -> str:
    """All of it; what is to be printed."""
    listener, observer = ProgressListener(), Observer()
    broker = await Broker.connect(storm.fleet.settings)
    await observer.open(broker)
    enough = asyncio.Event()
    storming = asyncio.create_task(rage(storm, listener, kills, chance, enough))
    running: dict[asyncio.Task[JobOutcome], Kind] = {}
    ended: list[tuple[Kind, JobOutcome]] = []
    started = 0
    while running or started < jobs or storm.kills.total() < kills:
        assert not storming.done() or storming.exception() is None, storming.exception()
        while len(running) < AT_ONCE and (started < jobs or storm.kills.total() < kills):
            kind = mix[started % len(mix)]
            running[asyncio.create_task(one_job(storm.fleet, kind, started, folder, listener))] = kind
            started += 1
        done, _ = await asyncio.wait(running, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        ended += [(running.pop(task), task.result()) for task in done]
    enough.set()
    await storming
    failed = []
    for kind, outcome in ended:
        assert outcome.done is not None or outcome.error is not None, f"{kind.name}: neither result nor failure"
        if outcome.ok:
            assert results_of(outcome) == kind.files, f"{kind.name}: another result than in a calm"
        else:
            why = outcome.error or "; ".join(outcome.done.failures if outcome.done else ())
            failed.append(f"  {kind.name}: {why}")
    assert max(listener.seen.values()) == 1, "a collector saw a part twice"
    dead_letters = [letter.failure async for letter in letters(broker)]
    again = await redeliveries(broker, {kind.spec.name for kind in mix})
    if not failed:
        await nothing_left(broker)
    await broker.close()
    lines = [
        f"{storm.kills.total()} kills ({', '.join(f'{count} {what}' for what, count in storm.kills.most_common())})",
        f"{len(ended)} jobs: {len(ended) - len(failed)} complete and equal to the reference, {len(failed)} failed",
        f"{len(listener.seen)} parts, each seen once; {again} redeliveries, {observer.repeats} duplicates suppressed",
        f"{len(dead_letters)} dead letters{''.join(storm.story(failure) for failure in dead_letters)}",
        *failed,
    ]
    return "\n".join(lines)


async def in_flight(broker: Broker) -> int:
    """How many messages workers have that they have not settled."""
    pending = 0
    for stream in (await broker.api("STREAM.LIST"))["streams"]:
        name = stream["config"]["name"]
        if "_WORK_" in name:
            consumers = (await broker.api(f"CONSUMER.LIST.{name}"))["consumers"] or []
            pending += sum(each["num_ack_pending"] + each["num_pending"] for each in consumers)
    return pending


async def nothing_left(broker: Broker) -> None:
    """Of jobs that are all done, the broker keeps each one's Done, and nothing else after a sweep."""
    async with asyncio.timeout(REST_S):
        while await in_flight(broker):  # a message whose ack was lost is computed again after its job is done
            await asyncio.sleep(0.1)
    swept = await sweep(broker, age_s=0.0, entire=True)
    names = broker.names
    kinds = Counter([stored.headers.get(HEADER_TYPE) async for stored in broker.read(names.results_stream)])
    attempts = await broker.items(names.attempts)
    begun = {key: body for key, body in attempts.items() if key.startswith("begun.") and json.loads(body)}
    streams = (await broker.api("STREAM.LIST"))["streams"]
    queues = [each for each in streams if "_WORK_" in each["config"]["name"]]
    blobs = [stored.subject async for stored in broker.read(f"OBJ_{names.blobs}")]
    print(f"\n{swept}; left: results {dict(kinds)}, attempts begun {len(begun)}, objects {len(blobs)}")
    assert set(kinds) <= {"done"}
    assert not [key for key in attempts if key.startswith("failed.")]
    assert not begun
    assert not [each["config"]["name"] for each in queues if each["state"]["messages"]]
    assert not blobs


@pytest.mark.parametrize(
    ("kills", "jobs", "rigs"),
    [
        (3, 3, 1),
        pytest.param(600, 30, 2, marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_every_job_of_a_mix_outlives_a_storm_of_kills(kills: int, jobs: int, rigs: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    mix = (all_kinds if kills > 10 else few_kinds)(tmp_path / "kinds")
    chance = random.Random(seed)
    chance.shuffle(mix)
    (tmp_path / "jobs").mkdir()
    began = time.monotonic()
    with Fleet((), tmp_path / "cache", **SETTINGS) as fleet:
        storm = Storm(fleet, tmp_path, rigs, 2, chance)
        try:
            storm.start()
            output = asyncio.run(weather(storm, mix, tmp_path / "jobs", jobs, kills, chance))
        finally:
            storm.stop()
        # a worker of a rig that was killed ends by the kernel, a moment later
        eventually(lambda: not any(alive(pid) for rig in storm.rigs for pid in rig.pids))
    left = [path for path in (tmp_path / "jobs").rglob("*") if ".part" in path.name]
    assert not left
    print(f"\nstorm, seed {seed}, {time.monotonic() - began:.0f} s: {output}")
