"""Runs one machine of a fleet: a supervisor with its workers, metrics, health checks and the status."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from http import HTTPStatus
from pathlib import Path

from pipelines.broker import Broker
from pipelines.cards import quarantine_lost
from pipelines.status import Depths, queue_depths
from schemas.errors import BrokerError, ExitCode, RigflowError
from schemas.rig import ALL_STAGES, RigSpec
from schemas.settings import Settings
from schemas.states import STOPPED
from workers.endpoints import Endpoints, Response
from workers.job_metrics import EndedJobs
from workers.known_stages import check_stages
from workers.metrics import CONTENT_TYPE, Snapshot, exposition
from workers.options import WorkerOptions
from workers.placed_by_rig import keep_placed
from workers.rig_care import RigCare
from workers.slot import Slot
from workers.supervisor import Supervisor
from workers.telemetry import Event, Fact, log_event

STATUS_EVERY_S = 2.0
SEEN_EVERY_S = 10.0  # a rig that dies is lost since a moment that is right within this time
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0  # between attempts to reach the broker
DEPTHS_S = 2.0  # how long the depths of queues are kept, and most seconds to wait for them


class Rig:
    """Runs the workers of `spec` until SIGTERM or SIGINT; `scratch` is the folder for their temporary files.

    `source` names the file of `spec` in errors.
    """

    def __init__(self, settings: Settings, spec: RigSpec, scratch: Path, source: str = "") -> None:
        self.name = spec.name
        self._settings = settings
        self._scratch = scratch
        self._stages = tuple(dict.fromkeys(stage for group in spec.worker for stage in group.named))
        self._source = source
        self._supervisor = Supervisor(self._workers(spec), log_event, start_pause_s=spec.start_pause_s)
        self._care = RigCare(spec, self._supervisor, scratch.parent / "power.json", log_event, self._lost)
        self._quarantining: set[asyncio.Task[None]] = set()
        self._state = "working"
        self._seen = ("", 0.0)  # the state in the bucket of what was last seen, and when it was put there
        self._depths: tuple[float, Depths | None] = (-DEPTHS_S, None)
        self._url = ""
        self._ended_jobs = EndedJobs()
        self._broker: Broker | None = None
        self._away = ", connecting"
        self._stopping = asyncio.Event()
        self._draining: asyncio.Task[bool] | None = None

    def _workers(self, spec: RigSpec) -> list[WorkerOptions]:
        groups = [group for group in spec.worker for _ in range(group.count)]
        return [
            WorkerOptions(
                settings=self._settings,
                stages=group.named or ALL_STAGES,
                auto=group.auto,
                name=f"{self.name}-{group.device.partition(':')[0]}{number}",
                rig=self.name,
                device=group.device,
                scratch=str(self._scratch),
            )
            for number, group in enumerate(groups)
        ]

    async def run(self) -> ExitCode:
        """Work until SIGTERM or SIGINT. Raises UsageError (port taken, no URL of a broker, no such stage), GivenUp."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        pages = {"/metrics": self._metrics, "/livez": self._livez, "/readyz": self._readyz}
        endpoints = Endpoints(self._settings.metrics, pages)
        self._url = await endpoints.open() if self._settings.metrics else ""
        facts: dict[str, Fact] = {"metrics": self._url, "broker": self._settings.nats, "pid": os.getpid()}
        count = len(self._supervisor.slots)
        log_event(Event("starting", f"rig {self.name} begins, with {count} workers to run", logging.INFO, facts))
        connecting = asyncio.create_task(self._connect())
        try:
            if not await self._unless_stopped(connecting):
                return ExitCode.OK
            assert self._broker is not None
            await check_stages(self._broker, self._stages, self._source)
            log_event(Event("serving", f"rig {self.name} runs {count} workers", logging.INFO, facts))
            async with self._care.caring():
                return await self._supervise()
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await endpoints.close()
            await self._leave()

    def _on_signal(self) -> None:
        """At the first signal workers finish the messages they hold, at the second they hand them back."""
        if self._stopping.is_set() and self._draining is not None:
            self._draining.cancel()
        self._stopping.set()

    async def _unless_stopped(self, task: asyncio.Task[None]) -> bool:
        """Wait for a task; False when a signal came first. Raises what the task raises."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if task.done():
            task.result()
        return not self._stopping.is_set()

    async def _connect(self) -> None:
        """Connect to the broker; while it is away, log that and try again."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._broker = await Broker.connect(self._settings, name=f"rigflow-rig-{self.name}")
                self._away = ""
                return
            except BrokerError as error:
                self._away = f", {error}"
                log_event(Event("waits", f"waits for the broker, trying again in {pause_s:.0f} s: {error}"))
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _supervise(self) -> ExitCode:
        """Keep the workers running until a signal; at a second signal they hand back their messages at once."""
        watching = asyncio.create_task(self._supervisor.watch())
        assert self._broker is not None
        reporting = [asyncio.create_task(self._report())]
        if any(slot.options.auto for slot in self._supervisor.slots):
            reporting.append(asyncio.create_task(keep_placed(self._broker, self.name)))
        if self._settings.metrics:
            reporting.append(asyncio.create_task(self._ended_jobs.follow(self._broker)))
        try:
            await self._unless_stopped(watching)  # raises GivenUp
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for task in reporting:
                task.cancel()
            await asyncio.gather(*reporting, return_exceptions=True)
        self._state = "draining"
        grace_s, hard_s = self._settings.stop_grace_s, self._settings.stop_hard_s
        text = f"stopping: workers finish what they hold within {grace_s:.0f} s; at a second signal they hand it back"
        log_event(Event("stopping", text, logging.INFO))
        self._draining = asyncio.create_task(self._supervisor.stop(grace_s, hard_s))
        try:
            in_time = await self._draining
        except asyncio.CancelledError:
            in_time = True  # after a second signal, unfinished work is no failure
        log_event(Event("stopped", "all workers have ended", logging.INFO))
        return ExitCode.OK if in_time else ExitCode.CUT_SHORT

    async def _leave(self) -> None:
        """Write the status `stopped` if the broker is there, and disconnect."""
        if self._broker is None:
            return
        self._state = STOPPED
        if self._broker.connection.connected:
            with contextlib.suppress(RigflowError, TimeoutError):
                async with asyncio.timeout(DEPTHS_S):
                    await self._put(self._broker)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEPTHS_S):
                await self._broker.close()

    def _lost(self, uuid: str, why: str) -> None:
        """Have the fleet know that a GPU of this rig takes no work any more, also when it is started again."""
        assert self._broker is not None
        task = asyncio.create_task(quarantine_lost(self._broker, uuid, why, self.name))
        self._quarantining.add(task)
        task.add_done_callback(self._quarantining.discard)

    # health and metrics

    async def _livez(self) -> Response:
        return Response(b"ok\n")

    async def _readyz(self) -> Response:
        """Ready: every worker runs, and its engines have answered their warm-up."""
        slots = self._supervisor.slots
        unready = [f"{slot.options.name}: {slot.unready}\n" for slot in slots if slot.unready]
        if self._broker is None or not self._broker.connection.connected:
            unready.insert(0, f"{self.name}: broker away{self._away}\n")
        if self._state != "working":
            unready.insert(0, f"{self.name}: {self._state}\n")
        if unready:
            return Response("".join(unready).encode(), HTTPStatus.SERVICE_UNAVAILABLE)
        return Response(b"ok\n")

    async def _metrics(self) -> Response:
        return Response(exposition(await self._snapshot()), content_type=CONTENT_TYPE)

    async def _snapshot(self) -> Snapshot:
        return Snapshot(
            stages=self._supervisor.counts(),
            workers=self._supervisor.slots,
            depths=await self._queue_depths(),
            jobs=self._ended_jobs.counts,
            jobs_by_key=self._ended_jobs.by_key,
            gpus=await self._care.sensors(),
            care=self._care.counts(),
            rig=self.name,
        )

    async def _queue_depths(self) -> Depths | None:
        """Depths of the queues, at most `DEPTHS_S` old; None while the broker is away."""
        taken_s, known = self._depths
        if time.monotonic() - taken_s < DEPTHS_S:
            return known
        try:
            async with asyncio.timeout(DEPTHS_S):
                known = await queue_depths(self._broker) if self._broker else None
        except (BrokerError, TimeoutError):
            known = None
        self._depths = (time.monotonic(), known)
        return known

    # status

    async def _report(self) -> None:
        """Put the rig's status into KV; it expires there when the rig is gone, but for what was last seen of it."""
        assert self._broker is not None
        while True:
            with contextlib.suppress(RigflowError):  # the broker is away: no client could read it either
                await self._put(self._broker)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _put(self, broker: Broker) -> None:
        status = {
            "rig": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": self._state,
            "at_s": broker.now_s(),
            "metrics": self._url,
            "workers": [_describe(slot) for slot in self._supervisor.slots],
            **self._care.status(),
        }
        key, body = f"rig.{self.name}", json.dumps(status).encode()
        await broker.put(broker.names.rigs, key, body)
        if self._state != self._seen[0] or time.monotonic() - self._seen[1] >= SEEN_EVERY_S:
            await broker.put(broker.names.last_seen, key, body)
            self._seen = (self._state, time.monotonic())


def _describe(slot: Slot) -> dict[str, object]:
    return {
        "worker": slot.options.name,
        "device": slot.options.device,
        "stages": list(slot.options.stages),
        "state": slot.state,
        "why": slot.unready,
        "deaths": slot.died,
        "last_exit": slot.last_exit,
        "paces": [[*key, frames, seconds] for key, (frames, seconds) in slot.paces().items()],
    }
