"""Starts the worker processes of a rig, restarts those that die, gives up those that die too often.

Each worker sends heartbeats on a socket of its own. A worker whose work has not moved for `work_deadline_s` is stuck; a
worker that sends no heartbeats is suspended or gets no CPU time. Both are killed: by then the broker has delivered
their messages to other workers.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from engines.scratch import remove_left
from schemas.errors import ExitCode, GivenUp
from schemas.text import size
from workers.forkserver import Entry, WorkerProcess
from workers.options import WorkerOptions, with_gpu_peers
from workers.process import start_worker
from workers.process_facts import describe_exit, resident_bytes, restart_pause_s
from workers.quarantine import KILLED, TRUSTED, LoadCrashes, oom_kills
from workers.slot import DEATHS, DEATHS_WITHIN_S, Slot, add_counts, describe_work
from workers.start_turns import StartTurns
from workers.telemetry import Event, Fact, Heartbeat, StageCounts

HAND_BACK_S = 3.0
CHECK_EVERY_S = 0.25
LEAST_SILENCE_S = 2.0  # a process on a busy machine may not run for this long
LOADING_SILENCE_S = 60.0
HEARTBEAT_BYTES = 1 << 17

OnEvent = Callable[[Event], None]


class Supervisor:
    """Keeps worker processes alive: `watch` until cancelled, then `stop`. They run `entry`."""

    def __init__(
        self,
        workers: Sequence[WorkerOptions],
        on_event: OnEvent = lambda _: None,
        entry: Entry = start_worker,
        start_pause_s: float = 0.0,
    ) -> None:
        """`start_pause_s` passes between the starts of two workers."""
        self._start_turns = StartTurns(start_pause_s)
        self.slots = [Slot(options) for options in with_gpu_peers(workers)]
        self._entry = entry
        self._on_event = on_event
        self._stopping = False
        self._starting: set[asyncio.Task[None]] = set()
        self._load_crashes: defaultdict[str, LoadCrashes] = defaultdict(LoadCrashes)  # by device

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [slot.process.pid for slot in self.slots if slot.process and slot.process.pid]

    def counts(self) -> dict[tuple[str, str], StageCounts]:
        """What all workers have done by (pipeline, stage), those included that have ended."""
        total: dict[tuple[str, str], StageCounts] = {}
        for slot in self.slots:
            add_counts(total, slot.retired)
            add_counts(total, slot.heartbeat.stages if slot.heartbeat else {})
        return total

    async def watch(self) -> None:
        """Start all workers, restart those that die, kill stuck ones. Raises GivenUp when all are given up."""
        checking = asyncio.create_task(self._check())
        keeping = [asyncio.create_task(self._keep(slot)) for slot in self.slots]
        try:
            await asyncio.gather(*keeping)
        finally:
            for task in (checking, *keeping):
                task.cancel()
            await asyncio.gather(checking, *keeping, return_exceptions=True)
        if self.slots and not self._stopping:
            lost = {slot.abandoned for slot in self.slots} - {""}
            died = f"every worker died {DEATHS} times within {DEATHS_WITHIN_S:.0f} s"
            raise GivenUp(f"no worker is left: {'; '.join(sorted(lost))}" if lost else died, "see the messages above")

    async def stop(self, grace_s: float, hard_s: float = HAND_BACK_S) -> bool:
        """Let workers finish within `grace_s`, have them hand back the rest within `hard_s`, then kill them.

        When this call is cancelled, they hand back at once. No message is lost in any case. False when a worker was
        killed.
        """
        self._stopping = True
        await asyncio.gather(*self._starting, return_exceptions=True)
        running = [slot for slot in self.slots if slot.running]
        try:
            await self._terminate(running, grace_s)
            for slot in running:
                if slot.running:
                    unfinished = f"has not finished within {grace_s:.0f} s, {describe_work(slot.heartbeat)}"
                    self._report(slot, "unfinished", unfinished)
            await self._terminate(running, hard_s)
        except asyncio.CancelledError:
            await self._terminate(running, hard_s)
            raise
        finally:
            late = [slot for slot in running if slot.running]
            for slot in late:
                what = f"does not end and is killed, {describe_work(slot.heartbeat)}; others redo its work"
                self._kill(slot, "killed", what)
            await asyncio.gather(*(self._exited(slot) for slot in late))
        return not late

    async def _terminate(self, slots: Sequence[Slot], within_s: float) -> None:
        """Send SIGTERM to those that run, and wait up to `within_s` for all to end."""
        running = [slot for slot in slots if slot.process]
        for slot in running:
            if slot.process:
                slot.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._exited(slot) for slot in running))

    async def abandon(self, devices: Collection[str], why: str) -> None:
        """End the workers of devices at once and start none there again; others do the messages they hand back."""
        slots = [slot for slot in self.slots if slot.options.device in devices and not slot.given_up]
        for slot in slots:
            slot.abandoned = why
        for _ in range(2):  # at the second signal a worker hands back what it holds
            for slot in slots:
                if slot.process and not slot.being_killed:
                    slot.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(CHECK_EVERY_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_BACK_S):
                await asyncio.gather(*(slot.process.exited() for slot in slots if slot.process))
        for slot in slots:
            self._end_abandoned(slot)

    def _end_abandoned(self, slot: Slot) -> None:
        """Kill the process of an abandoned slot, and start none any more."""
        if slot.process and not slot.being_killed:
            self._kill(slot, "killed", f"does not end and is killed, {describe_work(slot.heartbeat)}")
        if not slot.given_up:
            slot.given_up, slot.last_exit = True, slot.abandoned
            self._report(slot, "given-up", f"is not started again: {slot.abandoned}", level=logging.ERROR)

    async def _keep(self, slot: Slot) -> None:
        """Keep a process in a slot."""
        while True:
            try:
                async with self._start_turns.turn():
                    if self._stopping or slot.given_up or slot.abandoned:
                        return
                    starting = asyncio.create_task(self._start(slot))
                    self._starting.add(starting)
                    starting.add_done_callback(self._starting.discard)
                    await asyncio.shield(starting)
            except OSError as error:  # file descriptors, processes or memory ran out: a temporary error
                pause_s = self._retry_start(slot, f"cannot be started ({error.strerror})")
            else:
                if slot.abandoned:  # while it was being started
                    self._end_abandoned(slot)
                pause_s = self._on_exit(slot, await self._exited(slot))
            await asyncio.sleep(pause_s)

    async def _start(self, slot: Slot) -> None:
        crashes = self._load_crashes[slot.options.device]
        options = slot.options.model_copy(
            update={"quarantine": dict(crashes.quarantined), "load_alone": crashes.unexplained}
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        process = WorkerProcess(options, self._entry, theirs)
        try:
            with theirs:
                await process.start()
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        slot.process, slot.channel, slot.silent_s, slot.being_killed = process, ours, 0.0, ""
        slot.oom_kills, slot.load_alone = oom_kills(), options.load_alone
        asyncio.get_running_loop().add_reader(ours, self._read, slot)
        facts: dict[str, Fact] = {"pid": process.pid, "device": options.device, "stages": ",".join(options.stages)}
        self._report(slot, "started", f"runs {', '.join(options.stages)}", facts, logging.INFO)

    async def _exited(self, slot: Slot) -> int:
        """Wait for the end of a slot's process; its exit code."""
        if slot.process is None:
            return ExitCode.OK
        code = await slot.process.exited()
        if slot.channel is not None:
            self._read(slot)
            asyncio.get_running_loop().remove_reader(slot.channel)
            slot.channel.close()
        slot.process = slot.channel = None
        slot.last_exit = slot.abandoned or describe_exit(code)
        await asyncio.to_thread(remove_left, slot.options.scratch)
        return code

    def _read(self, slot: Slot) -> None:
        """Read a worker's heartbeats."""
        assert slot.channel is not None
        before = slot.heartbeat
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while body := slot.channel.recv(HEARTBEAT_BYTES):
                heartbeat = Heartbeat.decode(body)
                if slot.heartbeat is not None:
                    finished = set(slot.heartbeat.loading) - set(heartbeat.loading)
                    self._load_crashes[slot.options.device].loaded(finished)
                slot.heartbeat, slot.silent_s, slot.failed_starts = heartbeat, 0.0, 0
        if slot.heartbeat and slot.heartbeat.ready and not (before and before.ready):
            self._report(slot, "ready", "is ready: its engines answered their warm-up", level=logging.INFO)

    async def _check(self) -> None:
        """Kill workers that are stuck, or take more memory than they may."""
        while not self._stopping:
            await asyncio.sleep(CHECK_EVERY_S)
            for slot in self.slots:
                slot.silent_s += CHECK_EVERY_S
                if slot.process and not slot.being_killed:
                    self._check_one(slot, slot.process.pid)

    def _check_one(self, slot: Slot, pid: int) -> None:
        settings, heartbeat = slot.options.settings, slot.heartbeat
        patience_s = max(LEAST_SILENCE_S, 0.7 * settings.ack_wait_s)
        if heartbeat is None or heartbeat.state == "starting":  # it holds no work yet, and imports or loads
            patience_s = max(patience_s, settings.work_deadline_s)
        elif heartbeat.loading:  # ONNX Runtime parses a model without letting other threads run: 2 s a GB
            patience_s = max(patience_s, min(LOADING_SILENCE_S, settings.work_deadline_s))
        if slot.silent_s > patience_s:  # its leases end now, and new messages would wait in it
            self._kill(slot, "silent", f"has not answered for {slot.silent_s:.1f} s and is killed")
        elif heartbeat and heartbeat.still_s > settings.work_deadline_s and not heartbeat.loading:
            still = f"work has not moved for {heartbeat.still_s:.1f} s"
            self._kill(slot, "stuck", f"is killed, its {still}: it {describe_work(heartbeat)}")
        elif settings.worker_memory_bytes and (used := resident_bytes(pid)) > settings.worker_memory_bytes:
            most = size(settings.worker_memory_bytes)
            limit = f"{size(used)} of memory, more than worker_memory_bytes ({most})"
            self._kill(slot, "memory", f"is killed, it uses {limit}: it {describe_work(heartbeat)}")

    def _kill(self, slot: Slot, event: str, what: str) -> None:
        assert slot.process is not None
        self._report(slot, event, what)
        slot.being_killed = event
        slot.process.send_signal(signal.SIGKILL)

    def _on_exit(self, slot: Slot, code: int) -> float:
        """Handle the end of a worker: seconds until it is started again, unless it is given up."""
        if self._stopping:
            return 0.0
        heartbeat = slot.heartbeat
        slot.retire()
        if slot.abandoned:
            self._end_abandoned(slot)
            return 0.0
        if code == ExitCode.BROKER:  # its device is not the cause
            return self._retry_start(slot, "found no broker")
        slot.died += 1
        quarantined = self._count_load_crash(slot, heartbeat, code)
        crashes = self._load_crashes[slot.options.device]
        works = (heartbeat is not None and heartbeat.loaded > 0) or len(crashes.quarantined) <= TRUSTED
        if not (quarantined and works):
            slot.count_crash(time.monotonic())
        facts: dict[str, Fact] = {"exit": slot.last_exit, "deaths": slot.died}
        if len(slot.deaths) >= DEATHS:
            slot.given_up = True
            what = f"died {DEATHS} times, given up (last exit: {slot.last_exit})"
            self._report(slot, "given-up", what, facts, logging.ERROR)
            return 0.0
        pause_s = restart_pause_s(max(0, len(slot.deaths) - 1))
        at = " at an input that may have ended it before" if slot.ended_at_candidate else ""
        what = f"ended ({slot.last_exit}){at}, starting it again in {pause_s:.1f} s"
        self._report(slot, "died", what, facts | {"pause_s": pause_s})
        return pause_s

    def _count_load_crash(self, slot: Slot, heartbeat: Heartbeat | None, code: int) -> bool:
        """Whether a model is quarantined now, because the process ended while it loaded that model."""
        if heartbeat is None or not heartbeat.loading or not (code < 0 or code == ExitCode.DEVICE_LOST):
            return False
        outside = code == -signal.SIGKILL and not slot.being_killed and oom_kills() == slot.oom_kills
        crashes = self._load_crashes[slot.options.device]
        how = {"silent": "it did not answer", "memory": "it took too much memory"}.get(slot.being_killed)
        how = how or (signal.Signals(-code).name if code < 0 else "the device was lost")
        found = crashes.died(heartbeat.loading, KILLED if outside else 1.0, how, slot.load_alone)
        for sha256 in found:
            text = f"loads model {sha256[:12]} no more: {crashes.quarantined[sha256]}"
            self._report(slot, "quarantined", text, {"model": sha256}, logging.ERROR)
        return bool(found)

    def _retry_start(self, slot: Slot, what: str) -> float:
        """A worker could not start, and its device is not the cause: seconds until the next attempt."""
        pause_s = restart_pause_s(slot.failed_starts)
        slot.failed_starts += 1
        self._report(slot, "waits", f"{what}, starting it again in {pause_s:.1f} s", {"pause_s": pause_s})
        return pause_s

    def _report(
        self, slot: Slot, event: str, what: str, facts: Mapping[str, Fact] | None = None, level: int = logging.WARNING
    ) -> None:
        name = slot.options.name
        self._on_event(Event(event, f"worker {name} {what}", level, {"worker": name, **(facts or {})}))
