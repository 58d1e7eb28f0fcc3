"""A rig under faults: engines that never answer, processes that are stopped or die, and a supervisor that is killed."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fleet import answers_of, simulated
from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.publish import Publisher, job_id
from pipelines.status import FleetStatus, fleet_status
from schemas.errors import ExitCode
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.cli import rigflow_process
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.rig import Rig, alive, eventually
from tests.simulated import models_of
from workers.definitions import register
from workers.endpoints import CONNECTIONS
from workers.inputs import JobOutcome
from workers.instance_lock import HOME

pytestmark = pytest.mark.slow  # `make faults`

FOR_EVER_MS = 1e9
FRAMES, GOP = 128, 8  # a segment for each group of pictures
SPEC = simulated().model_copy(update={"segment_s": 0.1})


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path, Clip(frames=FRAMES, gop=GOP, b_frames=0, size=(32, 32)))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A broker, and nobody who works."""
    with Fleet((), tmp_path / "cache", ack_wait_s=3.0) as fleet:
        yield fleet


def status_of(settings: Settings) -> FleetStatus:
    async def ask() -> FleetStatus:
        broker = await Broker.connect(settings)
        try:
            return await fleet_status(broker)
        finally:
            await broker.close()

    return asyncio.run(ask())


async def with_fault(fleet: Fleet, clip: Path, out: Path, fault: Callable[[], None]) -> tuple[JobOutcome, float]:
    """Run a job with a fault as soon as its first part is there; the outcome, and seconds from the fault to its end."""
    listener = Silent()
    running = asyncio.create_task(fleet.run_async(SPEC, [clip], out, listener))
    while not listener.parts and not running.done():
        await asyncio.sleep(0.005)
    await asyncio.to_thread(fault)
    since = time.monotonic()
    (outcome,) = await running
    return outcome, time.monotonic() - since


def assert_complete(outcome: JobOutcome, clip: Path) -> None:
    assert outcome.done is not None, outcome.error
    assert not outcome.done.failures
    with np.load(outcome.target.parent / outcome.done.files[0]) as found:
        np.testing.assert_array_equal(found["crc32"], answers_of(clip, SPEC))


def test_a_slow_engine_goes_on_with_its_work(tmp_path: Path) -> None:
    """Its steps are long enough to be taken for stuck, and short enough to keep the lease."""
    clip = make_clip(tmp_path, Clip(frames=3 * GOP, gop=GOP, b_frames=0, size=(32, 32)))
    with Fleet(ONE_WORKER, tmp_path / "cache", (2400.0 / GOP,), ack_wait_s=3.0, max_deliver=1) as fleet:
        (outcome,) = fleet.run(SPEC, [clip], tmp_path / "out")
    assert_complete(outcome, clip)


def test_a_stuck_worker_is_killed_after_its_deadline_and_reported(fleet: Fleet, clip: Path, tmp_path: Path) -> None:
    with Rig(fleet, tmp_path, pace_ms=FOR_EVER_MS, work_deadline_s=2.0) as rig:
        rig.until_ready()
        asyncio.run(publish(fleet, clip))
        output = rig.until("event=stuck")
        rig.until('exit="signal SIGKILL"')
    assert re.search(r"event=stuck .*computes simulated infer since \d", output)


async def publish(fleet: Fleet, clip: Path | None) -> None:
    """Make the pipeline known, and leave a job with the fleet."""
    broker = await Broker.connect(fleet.settings)
    try:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        if clip is not None:
            publisher = Publisher(broker, spec, "main", Priority.BULK)
            await publisher.publish(
                publisher.ref(job_id(spec, [(str(clip), clip.stat())])), "video", [Input(clip, clip.name)]
            )
    finally:
        await broker.close()


def test_a_stopped_worker_is_killed_and_reported(fleet: Fleet, clip: Path, tmp_path: Path) -> None:
    with Rig(fleet, tmp_path) as rig:
        rig.until_ready()
        fault = lambda: os.kill(rig.pids[0], signal.SIGSTOP)  # noqa: E731
        outcome, _ = asyncio.run(with_fault(fleet, clip, tmp_path / "out", fault))
        rig.until("event=silent")
        rig.until_ready()
        eventually(lambda: rig.metric("rigflow_redeliveries_total") > 0)  # the worker held something
        assert rig.metric("rigflow_worker_deaths_total") == 1
    assert_complete(outcome, clip)


def test_a_worker_that_dies_too_often_is_given_up_and_reported(fleet: Fleet, clip: Path, tmp_path: Path) -> None:
    with Rig(fleet, tmp_path) as rig:
        rig.until_ready()
        for death in range(5):
            eventually(lambda: alive(rig.pids[0]))
            os.kill(rig.pids[0], signal.SIGKILL)
            rig.until(f"deaths={death + 1}")
        rig.until("worker r-cpu0 died 5 times, given up (last exit: signal SIGKILL)")
        (outcome,) = fleet.run(SPEC, [clip], tmp_path / "out")
        assert_complete(outcome, clip)
        code, why = rig.get("/readyz")
        assert (code, why) == (503, "r-cpu0: given up, last exit: signal SIGKILL\n")
        eventually(lambda: rig_status(fleet)["workers"][0]["state"] == "given up")
        shown = rigflow_process("status", "--nats", fleet.settings.nats).stdout
        assert re.search(r"r-cpu0 .*given up", shown)
        for death in range(5):
            eventually(lambda: alive(rig.pids[1]))
            os.kill(rig.pids[1], signal.SIGKILL)
            rig.until(f'worker=r-cpu1 exit="signal SIGKILL" deaths={death + 1}')
        assert rig.process.wait(10) == ExitCode.GIVEN_UP


def rig_status(fleet: Fleet) -> Any:
    (reported,) = status_of(fleet.settings).rigs
    return reported


def test_after_sigterm_it_finishes_what_it_holds(fleet: Fleet, clip: Path, tmp_path: Path) -> None:
    """And another rig goes on with the rest at once: nothing waits for a lease to end."""
    with Rig(fleet, tmp_path, "first") as first, Rig(fleet, tmp_path, "second") as second:
        first.until_ready()
        second.until_ready()
        ended: list[int] = []
        fault = lambda: ended.append(first.end(signal.SIGTERM))  # noqa: E731
        outcome, _ = asyncio.run(with_fault(fleet, clip, tmp_path / "out", fault))
        assert second.metric("rigflow_redeliveries_total") == 0
    assert ended == [ExitCode.OK]
    assert_complete(outcome, clip)


def test_what_cannot_finish_is_handed_back_and_what_does_not_answer_is_killed(
    fleet: Fleet, clip: Path, tmp_path: Path
) -> None:
    with Rig(fleet, tmp_path, pace_ms=FOR_EVER_MS, stop_grace_s=1.0, stop_hard_s=1.0) as rig:
        rig.until_ready()
        asyncio.run(publish(fleet, clip))
        eventually(lambda: rig.metric("rigflow_worker_in_flight") > 1)
        os.kill(rig.pids[0], signal.SIGSTOP)
        began = time.monotonic()
        assert rig.end(signal.SIGTERM) == ExitCode.CUT_SHORT
        assert time.monotonic() - began < 6
    assert re.search(r"event=unfinished worker=r-cpu0 .*has not finished within 1 s, holds \d+ item", rig.output)
    assert re.search(r"event=killed worker=r-cpu0 .*others redo its work", rig.output)
    assert "event=killed worker=r-cpu1" not in rig.output, "its loop lives, so it hands back"


def test_after_a_second_signal_it_hands_back_at_once(clip: Path, tmp_path: Path) -> None:
    """And a worker that comes then need not wait for leases to end."""
    with Fleet((), tmp_path / "cache", (1.0,), ack_wait_s=60.0) as fleet:
        with Rig(fleet, tmp_path, pace_ms=FOR_EVER_MS, ack_wait_s=60.0) as rig:
            rig.until_ready()
            asyncio.run(publish(fleet, clip))
            eventually(lambda: rig.metric("rigflow_worker_in_flight") > 1)
            rig.process.send_signal(signal.SIGTERM)
            rig.until("event=stopping")
            began = time.monotonic()
            assert rig.end(signal.SIGTERM) == ExitCode.OK
            assert time.monotonic() - began < 5
        fleet.add()
        began = time.monotonic()
        (outcome,) = fleet.run(SPEC, [clip], tmp_path / "out")
        assert time.monotonic() - began < 20
    assert_complete(outcome, clip)


def test_a_killed_supervisor_takes_its_workers_along_and_the_next_goes_on(
    fleet: Fleet, clip: Path, tmp_path: Path
) -> None:
    with Rig(fleet, tmp_path) as first:
        first.until_ready()
        workers = first.pids

        def fault() -> None:
            first.process.kill()
            eventually(lambda: not any(map(alive, workers)), timeout_s=10.0)
            second.__enter__()

        second = Rig(fleet, tmp_path)
        try:
            outcome, _ = asyncio.run(with_fault(fleet, clip, tmp_path / "out", fault))
            second.until_ready()
        finally:
            second.__exit__(None, None, None)
    assert_complete(outcome, clip)


def test_what_an_earlier_life_left_is_cleaned_up(fleet: Fleet, tmp_path: Path) -> None:
    scratch = tmp_path / "cache" / "rigs" / "r" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "half-a-film.mp4").touch()
    left = subprocess.Popen(["sleep", "60"], env={**os.environ, HOME: str(scratch.parent)})
    with Rig(fleet, tmp_path) as rig:
        rig.until("event=leftover")
        rig.until_ready()
        assert left.wait() == -signal.SIGTERM
        assert not list(scratch.iterdir())
        twin = rigflow_process(
            "rig", "--name", "r", "--nats", fleet.settings.nats, RIGFLOW_CACHE=str(tmp_path / "cache")
        )
        assert twin.returncode == ExitCode.USAGE
        assert f"rig r runs here already (pid {rig.process.pid})" in twin.stderr
        assert rig.end(signal.SIGTERM) == ExitCode.OK
    assert not scratch.exists()


def test_without_a_broker_it_waits_and_says_so_and_stops_at_a_signal(fleet: Fleet, tmp_path: Path) -> None:
    fleet.server.kill()
    with Rig(fleet, tmp_path) as rig:
        rig.until("event=waits")
        code, why = rig.get("/readyz")
        assert code == 503
        assert f"r: broker away, no broker at {fleet.settings.nats}" in why
        assert rig.get("/livez")[0] == 200
        fleet.server.restart()
        rig.until_ready()
        fleet.server.kill()
        eventually(lambda: "r: broker away\n" in rig.get("/readyz")[1])
        assert rig.end(signal.SIGTERM) == ExitCode.OK
    with Rig(fleet, tmp_path) as rig:
        rig.until("event=waits")
        assert rig.end(signal.SIGTERM) == ExitCode.OK


def test_a_supervisor_that_is_stopped_while_it_starts_gets_all_its_workers(fleet: Fleet, tmp_path: Path) -> None:
    with Rig(fleet, tmp_path) as rig:
        rig.until("event=serving")
        os.kill(rig.process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(rig.process.pid, signal.SIGCONT)
        rig.until_ready()  # it asks while they start


def test_a_flood_of_connections_does_not_end_it(fleet: Fleet, tmp_path: Path) -> None:
    with Rig(fleet, tmp_path) as rig:
        rig.until_ready()
        port = int(re.findall(r"metrics=http://127.0.0.1:(\d+)", rig.output)[0])
        with ExitStack() as flood:
            for _ in range(3 * CONNECTIONS):
                each = flood.enter_context(socket.create_connection(("127.0.0.1", port)))
                with suppress(OSError):
                    each.send(b"GET /metrics HTTP/1.1\r\n")
            descriptors = Path(f"/proc/{rig.process.pid}/fd")
            eventually(lambda: len(list(descriptors.iterdir())) < 2 * CONNECTIONS)
            os.kill(rig.pids[0], signal.SIGKILL)
            rig.until("event=died")
            rig.until_ready()
