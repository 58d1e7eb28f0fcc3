"""A rig's processes: starts its workers, restarts what dies with growing pauses, gives up on what dies too often.

Each worker beats on a socket of its own. One whose work has not moved for `work_deadline_s` is stuck, one that does
not beat is stopped or starved; both are killed, for what they hold is done by others by then.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import ExitCode, GivenUp
from workers.forkserver import ForkedProcess, ForkServer
from workers.process import WorkerOptions
from workers.telemetry import Beat, Event, Fact, StageCounts

DEATHS, DEATHS_WITHIN_S = 5, 60.0  # so many in so long, and the worker is given up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
HURRY_S = 3.0  # to hand work back
GUARD_S = 0.25
LEAST_SILENCE_S = 2.0  # a busy machine may keep a process waiting for so long
BEAT_BYTES = 1 << 17

OnEvent = Callable[[Event], None]
Stages = Mapping[tuple[str, str], StageCounts]


@dataclass(slots=True)
class Slot:
    """One worker's place: the process in it changes, the place stays.

    `silent_s` counts the supervisor's own time, so that a machine that slept does not kill its workers. `retired` is
    what the processes that ended here have counted. `suspected`: the last one was at an input that may have ended one
    before. `deaths` are the last that count against the device: when, and the parts that were done before that life.
    """

    options: WorkerOptions
    process: ForkedProcess | None = None
    channel: socket.socket | None = None
    beat: Beat | None = None
    silent_s: float = 0.0
    doomed: bool = False
    suspected: bool = False
    deaths: deque[tuple[float, int]] = field(default_factory=deque)
    parts_before: int = 0
    died: int = 0
    failed_starts: int = 0
    last_exit: str = ""
    given_up: bool = False
    retired: dict[tuple[str, str], StageCounts] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    @property
    def state(self) -> str:
        """What `status` shows: the worker's own word, or what became of it."""
        if self.given_up:
            return "given up"
        if not self.running:
            return "down"
        return self.beat.state if self.beat else "starting"

    @property
    def unready(self) -> str:
        """Why this worker is not ready; empty when it is."""
        if self.given_up or not self.running:
            return f"{self.state}, last exit: {self.last_exit}"
        return self.beat.why if self.beat else "starting"

    def retire(self) -> None:
        """Keep what the process that ended has counted."""
        self.suspected = self.beat is not None and self.beat.suspect
        if self.beat is not None:
            _add(self.retired, self.beat.stages)
        self.beat = None

    def blame(self, now_s: float) -> None:
        """Count a death against the device, unless it is the input's: a suspect's, where the device did other work.

        It did when parts were finished since the life began that ended with the first of the deaths of late. So two
        inputs that kill whoever begins them do not cost a rig its only device, and a device that finishes nothing is
        not excused by what it is given.
        """
        while self.deaths and now_s - self.deaths[0][0] >= DEATHS_WITHIN_S:
            self.deaths.popleft()
        parts = sum(counts.parts for counts in self.retired.values())
        if not (self.suspected and self.deaths and parts > self.deaths[0][1]):
            self.deaths.append((now_s, self.parts_before))
        self.parts_before = parts


class Supervisor:
    """Keeps worker processes alive: `start`, then `watch` until cancelled, then `stop`."""

    def __init__(self, workers: Sequence[WorkerOptions], on_event: OnEvent = lambda _: None) -> None:
        self.slots = [Slot(options) for options in workers]
        self._forks: ForkServer | None = None
        self._on_event = on_event
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [slot.process.pid for slot in self.slots if slot.process and slot.running]

    def counts(self) -> dict[tuple[str, str], StageCounts]:
        """What all workers have done by (pipeline, stage), those included that are no more."""
        total: dict[tuple[str, str], StageCounts] = {}
        for slot in self.slots:
            _add(total, slot.retired)
            _add(total, slot.beat.stages if slot.beat else {})
        return total

    async def start(self, forks: ForkServer) -> None:
        """Start all workers from a fork server, which `stop` ends too."""
        self._forks = forks
        for slot in self.slots:
            await self._spawn(slot)

    async def watch(self) -> None:
        """Restart what dies, kill what is stuck. Raises GivenUp when no worker is left to restart."""
        guard = asyncio.create_task(self._guard())
        try:
            await asyncio.gather(*(self._watch(slot) for slot in self.slots))
        finally:
            guard.cancel()
        if self.slots and not self._stopping:
            raise GivenUp(
                f"every worker died {DEATHS} times within {DEATHS_WITHIN_S:.0f} s", "its messages above say why"
            )

    async def stop(self, grace_s: float, hard_s: float = HURRY_S) -> bool:
        """Let workers finish within `grace_s`, have them hand back the rest within `hard_s`, then kill them.

        Cancelled, they hand back at once. Nothing in their hands is lost in any case; false when one was killed.
        """
        self._stopping = True
        told = [slot for slot in self.slots if slot.running]
        try:
            await _terminate(told, grace_s)
            for slot in told:
                if slot.running:
                    self._tell(slot, "unfinished", f"has not finished within {grace_s:.0f} s, {_holds(slot.beat)}")
            await _terminate(told, hard_s)
        except asyncio.CancelledError:
            await _terminate(told, hard_s)
            raise
        finally:
            late = [slot for slot in told if slot.running]
            for slot in late:
                self._tell(slot, "killed", f"does not end and is killed, {_holds(slot.beat)}; others redo its work")
                _kill(slot)
            await asyncio.gather(*(slot.process.ended() for slot in told if slot.process))
            for slot in told:
                self._hang_up(slot)
            if self._forks is not None:
                self._forks.close()
        return not late

    async def _spawn(self, slot: Slot) -> None:
        assert self._forks is not None, "start first"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs:
            ours.setblocking(False)
            slot.channel, slot.silent_s, slot.doomed = ours, 0.0, False
            asyncio.get_running_loop().add_reader(ours, self._hear, slot)
            slot.process = self._forks.fork(slot.options, theirs)
        pid, options = await slot.process.forked(), slot.options
        facts: dict[str, Fact] = {"pid": pid, "device": options.device, "stages": ",".join(options.stages)}
        self._tell(slot, "started", f"runs {', '.join(options.stages)}", facts, logging.INFO)

    def _hear(self, slot: Slot) -> None:
        """Take in a worker's beats."""
        assert slot.channel is not None
        before = slot.beat
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while body := slot.channel.recv(BEAT_BYTES):
                slot.beat, slot.silent_s, slot.failed_starts = Beat.decode(body), 0.0, 0
        if slot.beat and slot.beat.ready and not (before and before.ready):
            self._tell(slot, "ready", "is ready: its engines answered their warm-up", level=logging.INFO)

    def _hang_up(self, slot: Slot) -> None:
        if slot.channel is not None:
            self._hear(slot)
            asyncio.get_running_loop().remove_reader(slot.channel)
            slot.channel.close()
            slot.channel = None
        slot.retire()

    async def _guard(self) -> None:
        """Kill what is stuck."""
        while not self._stopping:
            await asyncio.sleep(GUARD_S)
            for slot in self.slots:
                slot.silent_s += GUARD_S
                if not slot.running or slot.doomed:
                    continue
                settings = slot.options.settings
                patience_s = max(LEAST_SILENCE_S, 0.7 * settings.ack_wait_s) if slot.beat else settings.work_deadline_s
                if slot.silent_s > patience_s:  # its leases end now, and what the broker still gives it would wait
                    self._tell(slot, "silent", f"has not answered for {slot.silent_s:.1f} s and is killed")
                    _kill(slot)
                elif slot.beat and slot.beat.still_s > settings.work_deadline_s:
                    still = f"work has not moved for {slot.beat.still_s:.1f} s"
                    self._tell(slot, "stuck", f"is killed, its {still}: it {_holds(slot.beat)}")
                    _kill(slot)

    async def _watch(self, slot: Slot) -> None:
        while not self._stopping:
            assert slot.process is not None
            code = await slot.process.ended()
            if self._stopping:
                return
            self._hang_up(slot)
            slot.last_exit = _exit(code)
            pause_s = self._waits(slot) if code == ExitCode.BROKER else self._mourn(slot)
            if slot.given_up:
                return
            await asyncio.sleep(pause_s)
            if not self._stopping:
                await self._spawn(slot)

    def _waits(self, slot: Slot) -> float:
        """A worker found no broker, which says nothing about its device: seconds until it is tried again."""
        pause_s = _pause_s(slot.failed_starts)
        slot.failed_starts += 1
        self._tell(slot, "waits", f"found no broker, starting it again in {pause_s:.1f} s", {"pause_s": pause_s})
        return pause_s

    def _mourn(self, slot: Slot) -> float:
        """A worker died: seconds until it is started again, unless it is given up."""
        slot.died += 1
        slot.blame(time.monotonic())
        facts: dict[str, Fact] = {"exit": slot.last_exit, "deaths": slot.died}
        if len(slot.deaths) >= DEATHS:
            slot.given_up = True
            what = f"died {DEATHS} times, given up (last exit: {slot.last_exit})"
            self._tell(slot, "given-up", what, facts, logging.ERROR)
            return 0.0
        pause_s = _pause_s(max(0, len(slot.deaths) - 1))
        at = " at an input that may have ended it before" if slot.suspected else ""
        what = f"ended ({slot.last_exit}){at}, starting it again in {pause_s:.1f} s"
        self._tell(slot, "died", what, facts | {"pause_s": pause_s})
        return pause_s

    def _tell(
        self, slot: Slot, event: str, what: str, facts: Mapping[str, Fact] | None = None, level: int = logging.WARNING
    ) -> None:
        name = slot.options.name
        self._on_event(Event(event, f"worker {name} {what}", level, {"worker": name, **(facts or {})}))


async def _terminate(slots: Sequence[Slot], within_s: float) -> None:
    """SIGTERM to those that run, and up to `within_s` for all to end."""
    processes = [slot.process for slot in slots if slot.process and slot.running]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(process.ended() for process in processes))


def _kill(slot: Slot) -> None:
    assert slot.process is not None
    slot.doomed = True
    slot.process.kill()


def _pause_s(failures: int) -> float:
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**failures)


def _holds(beat: Beat | None) -> str:
    """What a worker is about, as it last said."""
    if beat is None:
        return "it has not said anything yet"
    items = f"holds {beat.in_hand} {'item' if beat.in_hand == 1 else 'items'}"
    return f"{items}, computes {beat.step} since {beat.step_s:.1f} s" if beat.step else items


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _add(total: dict[tuple[str, str], StageCounts], stages: Stages) -> None:
    for key, counts in stages.items():
        total.setdefault(key, StageCounts()).add(counts)
