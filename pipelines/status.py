"""The status of a fleet, read from the broker: queues, workers, results and dead letters."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.broker import Broker
from pipelines.registry import hosted_pipelines
from pipelines.topology import listed
from pipelines.values import decoded
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.states import ENDED, LOST, STOPPED
from schemas.status import RigStatus, Status, WorkerStatus
from schemas.subjects import COLLECT, SPLIT

Info = Mapping[str, Any]  # a stream or a consumer, in the fields of JetStream's API


@dataclass(frozen=True, slots=True)
class PriorityStatus:
    """One priority of a queue: numbers of messages that wait, that are in flight, and that were delivered before.

    `requests` of workers wait for messages of this priority.
    """

    waiting: int = 0
    in_flight: int = 0
    redelivered: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What a stream holds; `oldest_s` is the age of its first message."""

    messages: int = 0
    nbytes: int = 0
    limit_bytes: int = 0
    oldest_s: float = 0.0

    def __add__(self, other: "StreamStatus") -> "StreamStatus":
        """Both together, such as the media of two tenants."""
        return StreamStatus(
            self.messages + other.messages,
            self.nbytes + other.nbytes,
            self.limit_bytes + other.limit_bytes,
            max(self.oldest_s, other.oldest_s),
        )


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue in front of one stage; that of `split` serves all pipelines."""

    pipeline: str
    stage: str
    kind: str
    stream: StreamStatus
    priorities: Mapping[Priority, PriorityStatus]


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The status at one moment. `pipelines`: name -> revision; `workers`, `rigs`: the last status of each,
    of rigs that ended too.

    `claims` are the bodies of messages that are too large for their streams, whatever stream that is.
    `now_s` is its moment, by the broker's clock.
    """

    store_bytes: int
    pipelines: Mapping[str, str]
    queues: Sequence[QueueStatus]
    workers: Sequence[Mapping[str, Any]]
    rigs: Sequence[Mapping[str, Any]]
    results: StreamStatus
    dead: StreamStatus
    claims: StreamStatus = StreamStatus()
    now_s: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Depths:
    """The depth of the queue in front of each (pipeline, stage), the dead letters, the claim checks, and the results.

    The queue of `split` serves all pipelines, so its pipeline is the empty name.
    """

    queues: Mapping[tuple[str, str], StreamStatus]
    dead: StreamStatus = StreamStatus()
    claims: StreamStatus = StreamStatus()
    results: StreamStatus = StreamStatus()


async def queue_depths(broker: Broker) -> Depths:
    """Depths of the queues, by one request. Raises BrokerError."""
    names = broker.names
    queues: dict[tuple[str, str], StreamStatus] = {}
    kept: dict[str, StreamStatus] = {}
    for info in await listed(broker, "STREAM.LIST", "streams"):
        subjects = info["config"].get("subjects") or [""]
        kind = subjects[0].removeprefix(f"{names.prefix}.").split(".")
        if kind[0] == "work":
            queues[kind[1], kind[2]] = _stream(info)
        elif kind[0] == "media":
            queues[kind[2], SPLIT] = queues.get((kind[2], SPLIT), StreamStatus()) + _stream(info)
        else:
            name = names.dead_stream if kind[0] == "dead" else info["config"]["name"]  # those of all tenants together
            kept[name] = kept.get(name, StreamStatus()) + _stream(info)
    stores = (names.dead_stream, f"OBJ_{names.blobs}", names.results_stream)
    return Depths(queues, *(kept.get(name, StreamStatus()) for name in stores))


async def fleet_status(broker: Broker) -> FleetStatus:
    """The status of the fleet now. Raises BrokerError."""
    names = broker.names
    account, specs, (workers, rigs), infos = await asyncio.gather(
        broker.api("INFO"),
        hosted_pipelines(broker),
        process_statuses(broker),
        listed(broker, "STREAM.LIST", "streams"),
    )
    streams = {info["config"]["name"]: info for info in infos}
    queues = await asyncio.gather(
        *(
            _queue(broker, pipeline, stage, kind, [streams[name] for name in having if name in streams])
            for pipeline, stage, kind, having in _queues(broker, specs)
            if having[0] in streams
        )
    )
    return FleetStatus(
        store_bytes=account["storage"],
        pipelines={spec.name: spec.revision for spec in specs},
        queues=queues,
        workers=workers,
        rigs=rigs,
        results=_stream(streams.get(names.results_stream)),
        dead=sum((_stream(streams.get(names.dead_of(each))) for each in ("", *names.tenants)), StreamStatus()),
        claims=_stream(streams.get(f"OBJ_{names.blobs}")),
        now_s=broker.now_s(),
    )


async def process_statuses(broker: Broker) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The last status of each worker that runs, and of each rig that runs or was seen lately. Raises BrokerError.

    The broker forgets the status of a rig that sends none for `RIG_AGE_S`, by its own clock, and what it has seen of it
    after the setting `rigs_age_s`.
    """
    found, seen = await asyncio.gather(broker.items(broker.names.rigs), broker.items(broker.names.last_seen, "rig.*"))
    return _statuses(WorkerStatus, found, "worker."), known_rigs(found, seen)


async def running_statuses(broker: Broker) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The last status of each worker and each rig that runs. Raises BrokerError."""
    found = await broker.items(broker.names.rigs)
    return _statuses(WorkerStatus, found, "worker."), _statuses(RigStatus, found, "rig.")


def known_rigs(found: Mapping[str, bytes], seen: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Rigs that run as they are, the others as `stopped` or `lost` since their last status."""
    running = {rig["rig"]: rig for rig in _statuses(RigStatus, found, "rig.")}
    last = {rig["rig"]: rig for rig in _statuses(RigStatus, seen, "rig.")}
    ended = {name: rig | {"state": STOPPED if rig["state"] == STOPPED else LOST} for name, rig in last.items()}
    rigs = [rig for _, rig in sorted((ended | running).items())]
    return [rig | {"since_s": rig["at_s"] if rig["state"] in ENDED else 0.0} for rig in rigs]


def _statuses(model: type[Status], statuses: Mapping[str, bytes], prefix: str) -> list[dict[str, Any]]:
    found = (decoded(model, statuses[key], f"status {key}") for key in sorted(statuses) if key.startswith(prefix))
    return [status.fields() for status in found if status is not None]


def _queues(broker: Broker, specs: Sequence[PipelineSpec]) -> list[tuple[str, str, str, list[str]]]:
    """Pipeline, stage, its kind and the streams of each queue, in the order of the stages."""
    names = broker.names
    queues = []
    for spec in specs:
        stages = [*((stage.name, stage.kind) for stage in spec.stage), (COLLECT, COLLECT)]
        media = [names.media_stream(spec.name, tenant) for tenant in ("", *sorted(names.tenants))]
        queues.append((spec.name, SPLIT, SPLIT, media))
        queues += [(spec.name, stage, kind, [names.work_stream(spec.name, stage)]) for stage, kind in stages]
    return queues


async def _queue(broker: Broker, pipeline: str, stage: str, kind: str, infos: Sequence[Info]) -> QueueStatus:
    """A queue, whose streams may be several: one for each tenant. Their consumers begin with the priority."""
    found = [await listed(broker, f"CONSUMER.LIST.{info['config']['name']}", "consumers") for info in infos]
    priorities = {
        priority: _priority([each for of in found for each in of if each["name"].partition("-")[0] == priority.value])
        for priority in Priority
    }
    return QueueStatus(pipeline, stage, kind, sum(map(_stream, infos), StreamStatus()), priorities)


def _priority(consumers: Sequence[Info]) -> PriorityStatus:
    return PriorityStatus(
        waiting=sum(each["num_pending"] for each in consumers),
        in_flight=sum(each["num_ack_pending"] for each in consumers),
        redelivered=sum(each["num_redelivered"] for each in consumers),
        requests=sum(each["num_waiting"] for each in consumers),
    )


def _stream(info: Info | None) -> StreamStatus:
    if info is None:
        return StreamStatus()
    state, limit = info["state"], info["config"]["max_bytes"]
    oldest_s = 0.0
    if state["messages"]:  # both times are the server's, so that our clock does not matter
        oldest_s = (datetime.fromisoformat(info["ts"]) - datetime.fromisoformat(state["first_ts"])).total_seconds()
    return StreamStatus(state["messages"], state["bytes"], max(0, limit), max(0.0, oldest_s))
