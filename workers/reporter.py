"""Reports the state of a worker: to the fleet through the broker, to its supervisor through a socket."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from engines.machine import cores
from engines.ports import Device
from engines.profiling.host_name import host_id
from engines.profiling.models import device_name
from engines.profiling.store import kept_profile
from pipelines.broker import Broker
from pipelines.fleet_view import device_of
from schemas.errors import RigflowError
from workers.options import WorkerOptions
from workers.pipeline_cache import PipelineCache
from workers.runner import Runner
from workers.telemetry import Heartbeat

STATUS_EVERY_S = 2.0
CHECK_EVERY_S = 0.25  # whether the state has changed, which is reported at once
AT_WORK = {"working", "idle"}  # they change with every message, which is not reported at once
RATES_OVER = 4  # reports: a rate is over the last six seconds, or fewer where the state has changed
HEARTBEAT_S = 1.0
HEARTBEATS_PER_ACK_WAIT = 5


def heartbeat_s(ack_wait_s: float) -> float:
    """Seconds between two heartbeats: several within `ack_wait_s`, so that missing ones are noticed in time."""
    return min(HEARTBEAT_S, ack_wait_s / HEARTBEATS_PER_ACK_WAIT)


Key = tuple[str, str]  # pipeline, stage


class StageTotals(NamedTuple):
    """Totals of a stage since its worker started."""

    parts: int
    frames: int
    seconds: float


NOTHING = StageTotals(0, 0, 0.0)


class SupervisorGone(RigflowError):
    """The supervisor has ended: nothing would kill this worker if it got stuck."""


class Reporter:
    """Sends status and heartbeats: `to_fleet` and `to_supervisor` run until they are cancelled."""

    def __init__(
        self,
        options: WorkerOptions,
        name: str,
        broker: Broker,
        runner: Runner,
        pipelines: PipelineCache,
        device: Device,
    ) -> None:
        self._options = options
        self._machine = {"cores": cores(), "processor": host_id()}
        self._device = device
        self._name = name
        self._broker = broker
        self._runner = runner
        self._pipelines = pipelines
        self._past: deque[tuple[float, dict[Key, StageTotals]]] = deque(maxlen=RATES_OVER)
        self._channel: socket.socket | None = None
        self._profile = ""
        self.draining = False

    @property
    def device_name(self) -> str:
        """What its device is called in a placement."""
        gpu = self._device.facts()
        return device_of(
            {
                "worker": self._name,
                "rig": self._options.rig,
                "host": socket.gethostname(),
                "device": self._options.device,
                "gpu": gpu,
            }
        )

    @property
    def state(self) -> str:
        """`draining`, `quarantined`, `cordoned`, `off hours`, `starting` (engines are loaded), `working` or `idle`."""
        if self.draining:
            return "draining"
        if self._runner.intake.quarantined:
            return "quarantined"
        if self._runner.intake.cordoned:
            return "off hours" if self._runner.intake.off_hours else "cordoned"
        if self._runner.in_flight.messages:
            return "working"
        return "starting" if self._pipelines.starting else "idle"

    async def to_fleet(self) -> None:
        """Put this worker's status into KV, soon after its state changes too; it expires there when it is gone."""
        self._profile = await asyncio.to_thread(self._profile_in_words)
        while True:
            gpu = await asyncio.to_thread(self._device.facts)  # its sensors take milliseconds
            reported, due_s = self.state, time.monotonic() + STATUS_EVERY_S
            with contextlib.suppress(RigflowError):  # the broker is away: no client can read the status either
                await self._broker.put(
                    self._broker.names.rigs, f"worker.{self._name}", json.dumps(self._status(gpu)).encode()
                )
            while True:
                await asyncio.sleep(CHECK_EVERY_S)
                changed = self.state != reported and {self.state, reported} != AT_WORK
                if changed or time.monotonic() >= due_s:
                    break

    def _status(self, gpu: Mapping[str, object]) -> dict[str, object]:
        why = self._pipelines.cold
        return {
            "worker": self._name,
            "rig": self._options.rig,
            "device": self._options.device,
            "card": self._runner.trust.card,
            "gpu": gpu,
            "host": socket.gethostname(),
            **self._machine,
            "pid": os.getpid(),
            "stages": list(self._options.stages),
            "auto": self._options.auto,
            "roles": self._runner.intake.roles.shown(),
            "state": self.state,
            "ready": not why,
            "why": why,
            "declined": self._pipelines.declined,
            "at_s": self._broker.now_s(),
            "rss_bytes": rss_bytes(),
            "in_flight": len(self._runner.in_flight.messages),
            "done": self._done(),
            "step": self._step(),
            "models": self._runner.costs.facts(),
            "profile": self._profile,
            **self._runner.counts,
        }

    def _profile_in_words(self) -> str:
        """What this worker's device was measured to do; empty where no profile is kept here."""
        name = device_name(self._device)
        profile = kept_profile(self._options.settings.cache_folder, name.id, name.driver)
        return "" if profile is None else profile.summary

    def _step(self) -> dict[str, object] | None:
        step = self._runner.step
        if step is None:
            return None
        return {"pipeline": step.pipeline, "stage": step.stage, "seconds": time.monotonic() - step.began_s}

    def _done(self) -> list[dict[str, object]]:
        """Totals of each stage, and its frames a second and share of the time over the last reports."""
        runner, now_s = self._runner, time.monotonic()
        done = {key: StageTotals(of.parts, of.frames, of.seconds) for key, of in runner.meter.stages.items()}
        if step := runner.step:  # count a running step too
            key = (step.pipeline, step.stage)
            known = done.get(key, NOTHING)
            done[key] = known._replace(seconds=known.seconds + now_s - step.began_s)
        self._past.append((now_s, done))
        since_s, before = self._past[0]
        span_s = max(now_s - since_s, 1e-3)
        rows: list[dict[str, object]] = []
        for key, of in done.items():
            earlier = before.get(key, NOTHING)
            rows.append(
                {
                    "pipeline": key[0],
                    "stage": key[1],
                    "parts": of.parts,
                    "frames": of.frames,
                    "seconds": of.seconds,
                    "message_s": runner.in_flight.throughput.message_s(*key),
                    "message_bytes": runner.in_flight.throughput.message_bytes(*key),
                    "frames_per_s": (of.frames - earlier.frames) / span_s,
                    "busy": min(1.0, (of.seconds - earlier.seconds) / span_s),
                }
            )
        return rows

    async def to_supervisor(self, channel: socket.socket) -> None:
        """Send heartbeats to the supervisor. Raises SupervisorGone when it has ended."""
        every_s = heartbeat_s(self._options.settings.ack_wait_s)
        with channel:
            channel.setblocking(False)
            self._channel = channel
            while True:
                try:
                    channel.send(self._heartbeat().encode())
                except BlockingIOError:
                    pass  # the supervisor has not read the last ones yet; the next one replaces this one
                except OSError as error:
                    raise SupervisorGone("the supervisor has ended") from error
                await asyncio.sleep(every_s)

    def report_now(self) -> None:
        """Send a heartbeat at once, before a step that may crash this process."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(self._heartbeat().encode())

    def _heartbeat(self) -> Heartbeat:
        runner, step = self._runner, self._runner.step
        why = self._pipelines.cold
        return Heartbeat(
            state=self.state,
            ready=not why,
            why=why,
            still_s=runner.heartbeats.still_s,
            step=f"{step.pipeline} {step.stage}" if step else "",
            step_s=time.monotonic() - step.began_s if step else 0.0,
            in_flight=len(runner.in_flight.messages),
            rss_bytes=rss_bytes(),
            loading=self._pipelines.opener.loading,
            loaded=self._pipelines.loaded,
            failed=self._pipelines.failed,
            card=runner.trust.card,
            quarantined=runner.trust.quarantined,
            canaries=runner.trust.canaries,
            poison_candidate=any(message.begun for message in runner.in_flight.poison_candidates),
            stages=runner.meter.stages,
        )


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
