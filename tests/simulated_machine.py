"""Workers that run real pipelines as slowly as the costs of a fleet say: every part of a machine takes its time.

The pictures are decoded, computed and encoded in earnest, so that results can be checked; a part that would take longer
on the imitated machine waits for the rest. What cards of one rig share, they share as files. A step that begins late,
because this machine was busy with something else, ends when it would have ended without that: see `_Machine.take`.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import engines.device
import workers.pipeline_cache
import workers.runner
from engines.inference.work import Begun
from engines.part import Part, Tick
from pipelines.broker import Broker
from placement.costs import NOTHING, Cost, StageWork, Work, cost
from placement.fleet import Device, Fleet
from schemas.errors import RigflowError
from schemas.pipeline import OperatorStage
from schemas.segments import Segment
from schemas.settings import Settings
from schemas.subjects import Names
from tests.prefetching import PrefetchingHost
from tests.simulated_card import Resource, shared
from workers.forkserver import Entry
from workers.in_flight import InFlight
from workers.options import WorkerOptions
from workers.process import start_worker
from workers.stages import LoadedPipeline

CATCH_UP_S = 0.5  # a thread that begins a step so soon after its last one was not idle: the imitating machine was late


@dataclass(frozen=True)
class SimulatedWorker:
    """What a worker imitates: the cost of a piece for each stage of one pipeline, and what it shares, by file.

    `frames` are those of a piece. `decodes`: the stages that are one step with decode. `decoders`: segments that it
    decodes at a time; 0: it is a core.
    """

    costs: Mapping[str, Cost]
    frames: float
    decodes: tuple[str, ...]
    decoders: int
    cores: str
    network: tuple[str, str]  # in, out
    network_bytes_per_s: float


def simulated_workers(fleet: Fleet, work: Work, folder: Path) -> dict[str, SimulatedWorker]:
    """The workers of a fleet for a job, by name: one for each card, and one for each core that computes."""
    found = {}
    for rig in fleet.rigs:
        cores = shared(folder / f"{rig.name}.cores", rig.cores)
        network = shared(folder / f"{rig.name}.in"), shared(folder / f"{rig.name}.out")
        for device in rig.devices:
            costs = {stage.name: cost(work, stage, rig, device) for stage in work.stages}
            worker = SimulatedWorker(
                costs,
                work.frames,
                _of_decode(work.stages),
                0 if device.is_cpu else device.pieces(rig.cores),
                cores,
                network,
                rig.link_bytes_per_s,
            )
            found |= dict.fromkeys(names_of(device), worker)
    return found


def names_of(device: Device) -> list[str]:
    """The names of the workers of a device."""
    return [device.name] if device.workers == 1 else [f"{device.name}{at}" for at in range(device.workers)]


def _of_decode(stages: Sequence[StageWork]) -> tuple[str, ...]:
    """The stages that a worker does in the step of decode: it, and stages without a model right behind it."""
    behind = (at for at, stage in enumerate(stages) if at and not (stage.of_decode and not stage.model))
    return tuple(stage.name for stage in stages[: next(behind, 1)])


class _Machine:
    """The parts of the machine that a worker process imitates."""

    def __init__(self, worker: SimulatedWorker) -> None:
        self.worker = worker
        self.network = tuple(Resource(file) for file in worker.network)
        self._cores = Resource(worker.cores)
        self._compute, self._decoder, self._encoder = Resource(), Resource(), Resource()
        self._link = {True: Resource(), False: Resource()}  # to the device, where pictures are decoded, and back
        self._thread = threading.local()  # `ended_s`: when its last step ended on the imitated machine

    def take(self, seconds: Cost, frames: float, since_s: float, decodes: bool = False) -> None:
        """Take what so many frames cost, of one part of the machine after the other, in a step that began at `since_s`.

        A thread that had work all the time begins where its last step ended. So the time that this machine was late is
        made up for, as long as it does the real work in less time than the imitated one.
        """
        share, ended_s = frames / self.worker.frames, getattr(self._thread, "ended_s", -CATCH_UP_S)
        since_s = ended_s if since_s - ended_s < CATCH_UP_S else since_s
        for part, taken_s in (
            (self._link[decodes], seconds.link_s),
            (self._decoder, seconds.decoder_s),
            (self._compute, seconds.compute_s),
            (self._encoder, seconds.encoder_s),
            (self._cores, seconds.core_s),
        ):
            since_s = part.serve(share * taken_s, since_s)
        self._thread.ended_s = since_s

    async def carry(self, direction: int, nbytes: int) -> None:
        """Take the time of so many bytes on the network link: 0 in, 1 out."""
        end_s = self.network[direction].reserve(nbytes / self.worker.network_bytes_per_s)
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))

    def decoded(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Parts, each as late as the machine decodes it."""
        seconds = sum((self.worker.costs[name] for name in self.worker.decodes), NOTHING)
        while True:
            since_s = time.monotonic()
            part = next(parts, None)
            if part is None:
                return
            self.take(seconds, part.meta.frames, since_s, decodes=True)
            yield part


def machine_entry(machines: Mapping[str, SimulatedWorker]) -> Entry:
    """What workers run that imitate machines, by the name of the worker."""
    return partial(_start, dict(machines))


def _start(machines: Mapping[str, SimulatedWorker], options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    machine = _Machine(machines[options.name])

    class Gpu(PrefetchingHost):
        def __init__(self, settings: Settings) -> None:
            super().__init__(settings, machine.worker.decoders)

        def _decoded(self, parts: Iterator[Part]) -> Iterator[Part]:
            return machine.decoded(parts)

    class Core(engines.device.Host):
        def decode(self, segment: Segment, *args: Any, **kwargs: Any) -> Iterator[Part]:
            return machine.decoded(super().decode(segment, *args, **kwargs))

    class Loaded(LoadedPipeline):
        def operate(
            self, stage: OperatorStage, parts: Sequence[Part], tick: Tick, only_full: bool = False
        ) -> list[Part | RigflowError]:
            since_s = time.monotonic()
            outcomes = super().operate(stage, parts, tick, only_full)
            ended = (part for part, out in zip(parts, outcomes, strict=True) if not isinstance(out, Begun))
            done = sum(part.meta.frames for part in ended)
            machine.take(machine.worker.costs[stage.name], done, since_s)
            return outcomes

        def encode(self, part: Part, tick: Tick) -> bytes:
            since_s = time.monotonic()
            body = super().encode(part, tick)
            machine.take(machine.worker.costs[self.spec.encode.name], part.meta.frames, since_s)
            return body

    engines.device.Host = Core if not machine.worker.decoders else Gpu  # type: ignore[attr-defined, misc]
    workers.pipeline_cache.LoadedPipeline = Loaded  # type: ignore[misc]
    read_content, publish = workers.runner.read_content, Broker.publish

    async def read_late(message: InFlight, names: Names) -> Any:
        await machine.carry(0, message.nbytes)
        return await read_content(message, names)

    async def publish_late(broker: Broker, subject: str, body: Any, *args: Any) -> bool:
        await machine.carry(1, len(body))
        return await publish(broker, subject, body, *args)

    workers.runner.read_content = read_late
    Broker.publish = publish_late  # type: ignore[assignment, method-assign]
    start_worker(options, heartbeats)
