"""One machine's part of a fleet: its workers under a supervisor, their metrics and health, its place in the status."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from http import HTTPStatus

from pipelines.broker import Broker
from pipelines.status import Depths, queue_depths
from schemas.errors import BrokerError, ExitCode, RigflowError
from schemas.rig import RigSpec, rig_name
from schemas.settings import Settings
from workers.endpoints import Endpoints, Page
from workers.forkserver import ForkServer
from workers.home import end_leftovers, rig_home
from workers.metrics import CONTENT_TYPE, Snapshot, exposition
from workers.process import ALL_STAGES, WorkerOptions
from workers.supervisor import Slot, Supervisor
from workers.telemetry import Event, Fact, tell

STATUS_EVERY_S = 2.0
DEPTHS_S = 2.0  # the broker's word on its queues is good for so long, and is waited for so long


class Rig:
    """Runs the workers of `spec` until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, spec: RigSpec) -> None:
        self.name = spec.name or rig_name(socket.gethostname())
        self._settings = settings
        self._home = settings.cache_folder / "rigs" / self.name
        self._supervisor = Supervisor(self._workers(spec), tell)
        self._state = "working"
        self._depths: tuple[float, Depths | None] = (-DEPTHS_S, None)
        self._url = ""

    def _workers(self, spec: RigSpec) -> list[WorkerOptions]:
        groups = [group for group in spec.worker for _ in range(group.count)]
        return [
            WorkerOptions(
                settings=self._settings,
                stages=group.stages or ALL_STAGES,
                name=f"{self.name}-{group.device.partition(':')[0]}{number}",
                rig=self.name,
                device=group.device,
                scratch=str(self._home / "scratch"),
            )
            for number, group in enumerate(groups)
        ]

    async def run(self) -> ExitCode:
        """Work until told to stop. Raises BrokerError (at the start), UsageError (port taken), GivenUp, StoreError."""
        with rig_home(self._home, self.name):
            for pid in await asyncio.to_thread(end_leftovers, self._home):
                tell(Event("leftover", f"worker process {pid} of an earlier life was still there", facts={"pid": pid}))
            broker = await Broker.connect(self._settings, name=f"rigflow-rig-{self.name}")
            try:
                return await self._run(broker)
            finally:
                await broker.close()

    async def _run(self, broker: Broker) -> ExitCode:
        async def metrics() -> Page:
            return Page(exposition(await self._snapshot(broker)), content_type=CONTENT_TYPE)

        pages = {"/metrics": metrics, "/livez": self._livez, "/readyz": self._readyz}
        endpoints = Endpoints(self._settings.metrics, pages)
        self._url = await endpoints.open() if self._settings.metrics else ""
        facts: dict[str, Fact] = {"metrics": self._url, "broker": self._settings.nats, "pid": os.getpid()}
        tell(Event("serving", f"rig {self.name} runs {len(self._supervisor.slots)} workers", logging.INFO, facts))
        reporting = asyncio.create_task(self._report(broker))
        try:
            return await self._supervise()
        finally:
            reporting.cancel()
            await endpoints.close()
            with contextlib.suppress(RigflowError, TimeoutError):
                async with asyncio.timeout(DEPTHS_S):
                    self._state = "stopped"
                    await self._put(broker)

    async def _supervise(self) -> ExitCode:
        """Keep the workers up until a signal; a second one has them hand back at once what they hold."""
        told = asyncio.Event()
        stopping: list[asyncio.Task[bool]] = []

        def on_signal() -> None:
            for task in stopping:
                task.cancel()
            told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        watching = asyncio.create_task(self._watch())
        waiting = asyncio.create_task(told.wait())
        try:
            await asyncio.wait([watching, waiting], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()  # raises: no worker is left
        finally:
            watching.cancel()
            waiting.cancel()
        self._state = "draining"
        grace_s, hard_s = self._settings.stop_grace_s, self._settings.stop_hard_s
        text = f"told to stop: workers finish what they hold within {grace_s:.0f} s; told again, they hand it back"
        tell(Event("stopping", text, logging.INFO))
        stopping.append(asyncio.create_task(self._supervisor.stop(grace_s, hard_s)))
        try:
            in_time = await stopping[0]
        except asyncio.CancelledError:
            in_time = True  # told twice: whoever does that does not ask whether all was finished
        tell(Event("stopped", "all workers have ended", logging.INFO))
        return ExitCode.OK if in_time else ExitCode.CUT_SHORT

    async def _watch(self) -> None:
        await self._supervisor.start(ForkServer(str(self._home)))
        await self._supervisor.watch()

    # health and metrics

    async def _livez(self) -> Page:
        return Page(b"ok\n")

    async def _readyz(self) -> Page:
        """Ready: every worker runs, and its engines have answered their warm-up."""
        slots = self._supervisor.slots
        unready = [f"{slot.options.name}: {slot.unready}\n" for slot in slots if slot.unready]
        if self._state != "working":
            unready.insert(0, f"{self.name}: {self._state}\n")
        if unready:
            return Page("".join(unready).encode(), HTTPStatus.SERVICE_UNAVAILABLE)
        return Page(b"ok\n")

    async def _snapshot(self, broker: Broker) -> Snapshot:
        slots = self._supervisor.slots
        beats = {slot.options.name: slot.beat for slot in slots if slot.beat}
        return Snapshot(
            stages=self._supervisor.counts(),
            in_hand={name: beat.in_hand for name, beat in beats.items()},
            memory={name: beat.rss_bytes for name, beat in beats.items()},
            deaths={slot.options.name: slot.died for slot in slots},
            depths=await self._depths_of(broker),
        )

    async def _depths_of(self, broker: Broker) -> Depths | None:
        """The queues now, or a moment ago; None while the broker is away."""
        taken_s, known = self._depths
        if time.monotonic() - taken_s < DEPTHS_S:
            return known
        try:
            async with asyncio.timeout(DEPTHS_S):
                known = await queue_depths(broker)
        except (BrokerError, TimeoutError):
            known = None
        self._depths = (time.monotonic(), known)
        return known

    # status

    async def _report(self, broker: Broker) -> None:
        """Put the rig's status into KV; it fades there when the rig is gone."""
        while True:
            with contextlib.suppress(RigflowError):  # the broker is away: nobody could read it either
                await self._put(broker)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _put(self, broker: Broker) -> None:
        status = {
            "rig": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": self._state,
            "at_s": time.time(),
            "metrics": self._url,
            "workers": [_told(slot) for slot in self._supervisor.slots],
        }
        await broker.put(broker.names.rigs, f"rig.{self.name}", json.dumps(status).encode())


def _told(slot: Slot) -> dict[str, object]:
    return {
        "worker": slot.options.name,
        "device": slot.options.device,
        "stages": list(slot.options.stages),
        "state": slot.state,
        "why": slot.unready,
        "deaths": slot.died,
        "last_exit": slot.last_exit,
    }
