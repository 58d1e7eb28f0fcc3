"""Which deaths of a worker count against its device, and what a worker may take of memory."""

import asyncio
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from engines.scratch import ScratchFolder
from schemas.settings import Settings
from tests.poison import start_hungry
from tests.rig import eventually
from workers.forkserver import WorkerProcess, start_fork_server
from workers.options import WorkerOptions
from workers.slot import DEATHS, Slot
from workers.supervisor import Supervisor
from workers.telemetry import Event, Heartbeat, StageCounts


def slot_after(deaths: list[tuple[float, int, bool]]) -> Slot:
    """A slot whose processes died at those seconds, each after so many parts, at a poison candidate or not."""
    slot = Slot(WorkerOptions.model_validate({"settings": {}}))
    for at_s, parts, poison_candidate in deaths:
        slot.heartbeat = Heartbeat(
            "working", True, poison_candidate=poison_candidate, stages={("p", "infer"): StageCounts(parts=parts)}
        )
        slot.retire()
        slot.count_crash(at_s)
    return slot


def test_inputs_that_kill_are_no_fault_of_a_device_that_does_other_work() -> None:
    two = [(0.0, 20, False), (0.3, 5, False), *((10.0 * n, 0, True) for n in range(1, 8))]
    assert len(slot_after(two).deaths) <= 2


def test_a_device_that_finishes_nothing_is_given_up_whatever_it_is_given() -> None:
    broken = [(10.0 * n, 0, n % 4 > 0) for n in range(DEATHS)]
    assert len(slot_after(broken).deaths) == DEATHS


def test_a_device_that_breaks_after_long_work_is_given_up_when_that_is_a_minute_ago() -> None:
    broken = [(0.0, 1000, False), *((10.0 * n, 0, n % 4 > 0) for n in range(1, 12))]
    assert len(slot_after(broken).deaths) >= DEATHS


def test_deaths_that_are_long_ago_do_not_count() -> None:
    assert len(slot_after([(40.0 * n, 0, False) for n in range(2 * DEATHS)]).deaths) < DEATHS


def hungry(name: str) -> WorkerOptions:
    return WorkerOptions(settings=Settings(worker_memory_bytes=200 << 20), name=name)


def test_an_allocation_beyond_the_memory_of_a_worker_fails_in_it() -> None:
    process = WorkerProcess(hungry("limited"), start_hungry)
    process.start_now()
    assert process.wait() == 0


async def test_a_worker_that_takes_more_memory_than_it_may_is_ended_with_that_reason() -> None:
    events: asyncio.Queue[Event] = asyncio.Queue()
    supervisor = Supervisor([hungry("w")], events.put_nowait, start_hungry)
    watching = asyncio.create_task(supervisor.watch())
    try:
        async with asyncio.timeout(30):
            while (event := await events.get()).what != "memory":
                pass
    finally:
        watching.cancel()
        await supervisor.stop(0.0)
    assert "more than worker_memory_bytes (210 MB)" in event.text


def start_littering(options: WorkerOptions, heartbeats: socket.socket | None) -> NoReturn:
    """Make a temporary folder, and end as a process that is killed."""
    tempfile.tempdir = options.scratch
    (ScratchFolder("t").path / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def test_the_temporary_folders_of_a_worker_that_was_killed_are_removed(tmp_path: Path) -> None:
    events: asyncio.Queue[Event] = asyncio.Queue()
    options = WorkerOptions(settings=Settings(), name="w", scratch=str(tmp_path))
    supervisor = Supervisor([options], events.put_nowait, start_littering)
    watching = asyncio.create_task(supervisor.watch())
    try:
        async with asyncio.timeout(30):
            while (event := await events.get()).what != "died":
                pass
        assert "SIGKILL" in event.text
        assert list(tmp_path.iterdir()) == []
    finally:
        watching.cancel()
        await supervisor.stop(0.0)


def waits_for_fork_server() -> bool:
    """Whether a thread of this process waits for the fork server to say which process it made."""
    return any(frame.f_code.co_name == "read_signed" for frame in sys._current_frames().values())


async def test_a_fork_server_that_is_killed_while_it_starts_a_worker_ends_no_supervisor(tmp_path: Path) -> None:
    start_fork_server()
    fork_server = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(fork_server, signal.SIGSTOP)  # it takes the request, and does not answer
    events: asyncio.Queue[Event] = asyncio.Queue()
    supervisor = Supervisor(
        [WorkerOptions(settings=Settings(), name="w", scratch=str(tmp_path))], events.put_nowait, start_littering
    )
    watching = asyncio.create_task(supervisor.watch())
    try:
        await asyncio.to_thread(eventually, waits_for_fork_server)
        os.kill(fork_server, signal.SIGKILL)
        async with asyncio.timeout(30):
            seen = [await events.get()]
            while seen[-1].what != "started":
                seen.append(await events.get())
    finally:
        with suppress(ProcessLookupError):
            os.kill(fork_server, signal.SIGCONT)
        watching.cancel()
        await supervisor.stop(0.0)
    assert [event.what for event in seen] == ["waits", "started"]
    assert "cannot be started (the fork server ended)" in seen[0].text
