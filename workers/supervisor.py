"""A rig's processes: starts its workers, restarts what dies with growing pauses, gives up on what dies too often."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import RigflowError
from workers.process import WorkerOptions

DEATHS, DEATHS_WITHIN_S = 5, 60.0  # so many in so long, and the worker is given up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
HURRY_S = 3.0  # to hand work back

OnEvent = Callable[[str], None]


class WorkersGivenUp(RigflowError):
    """Every worker died too often to go on."""


@dataclass(slots=True)
class _Slot:
    """One worker's place: the process in it changes, the place stays."""

    options: WorkerOptions
    process: asyncio.subprocess.Process | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))
    given_up: bool = False


class Supervisor:
    """Keeps worker processes alive: `start`, then `watch` until cancelled, then `stop`."""

    def __init__(self, workers: list[WorkerOptions], on_event: OnEvent = lambda _: None) -> None:
        self._slots = [_Slot(options) for options in workers]
        self._on_event = on_event
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [slot.process.pid for slot in self._slots if slot.process and slot.process.returncode is None]

    async def start(self) -> None:
        """Start all workers."""
        for slot in self._slots:
            await self._spawn(slot)

    async def watch(self) -> None:
        """Restart what dies. Raises WorkersGivenUp when no worker is left to restart."""
        await asyncio.gather(*(self._watch(slot) for slot in self._slots))
        if self._slots and not self._stopping:
            raise WorkersGivenUp(
                f"every worker died {DEATHS} times within {DEATHS_WITHIN_S:.0f} s", "its messages above say why"
            )

    async def stop(self, grace_s: float) -> None:
        """Let workers finish within `grace_s`, then end them; nothing in their hands is lost.

        Cancelled, they hand back at once what they hold.
        """
        self._stopping = True
        running = [slot.process for slot in self._slots if slot.process and slot.process.returncode is None]
        try:
            await _terminate(running, grace_s)
        except asyncio.CancelledError:
            await _terminate(running, HURRY_S)
            raise
        finally:
            for process in running:
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*(process.wait() for process in running))

    async def _spawn(self, slot: _Slot) -> None:
        options = slot.options.model_copy(update={"parent": os.getpid()})
        slot.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workers.process", options.model_dump_json(), start_new_session=True
        )

    async def _watch(self, slot: _Slot) -> None:
        while not self._stopping:
            assert slot.process is not None
            code = await slot.process.wait()
            if self._stopping:
                return
            now = time.monotonic()
            slot.deaths.append(now)
            if len(slot.deaths) == DEATHS and now - slot.deaths[0] < DEATHS_WITHIN_S:
                slot.given_up = True
                self._on_event(f"worker {slot.options.name} died {DEATHS} times, given up (last exit: {_exit(code)})")
                return
            recent = sum(now - death < DEATHS_WITHIN_S for death in slot.deaths)
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (recent - 1))
            self._on_event(f"worker {slot.options.name} ended ({_exit(code)}), starting it again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
            await self._spawn(slot)


async def _terminate(processes: list[asyncio.subprocess.Process], within_s: float) -> None:
    """SIGTERM, and up to `within_s` for all to end."""
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(process.wait() for process in processes))


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
