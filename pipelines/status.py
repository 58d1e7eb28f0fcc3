"""What a fleet does now: queues, workers, results and dead letters, as the broker tells it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.broker import Broker
from pipelines.registry import load_pipeline, pipeline_names
from pipelines.topology import listed
from schemas.messages import Lane
from schemas.subjects import COLLECT, SPLIT

Info = Mapping[str, Any]  # a stream or a consumer, in the fields of JetStream's API


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane of a queue: messages that wait, those in workers' hands, and those that were delivered before."""

    waiting: int = 0
    in_flight: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What a stream holds; `oldest_s` is the age of its first message."""

    messages: int = 0
    nbytes: int = 0
    limit_bytes: int = 0
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue in front of one stage; that of `split` serves all pipelines. `hungry`: requests that wait for work."""

    pipeline: str
    stage: str
    stream: StreamStatus
    lanes: Mapping[Lane, LaneStatus]
    hungry: int


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """All of it at one moment. `pipelines`: name -> revision; `workers`: what each last said of itself."""

    store_bytes: int
    pipelines: Mapping[str, str]
    queues: Sequence[QueueStatus]
    workers: Sequence[Mapping[str, Any]]
    results: StreamStatus
    dead: StreamStatus


async def fleet_status(broker: Broker) -> FleetStatus:
    """Ask the broker for all of it. Raises BrokerError."""
    names = broker.names
    account, pipelines, rigs, infos = await asyncio.gather(
        broker.api("INFO"),
        pipeline_names(broker),
        broker.items(names.rigs),
        listed(broker, "STREAM.LIST", "streams"),
    )
    streams = {info["config"]["name"]: info for info in infos}
    queues = await asyncio.gather(
        *(
            _queue(broker, pipeline, stage, streams[name])
            for pipeline, stage, name in await _hops(broker, pipelines)
            if name in streams
        )
    )
    return FleetStatus(
        store_bytes=account["storage"],
        pipelines=pipelines,
        queues=queues,
        workers=[json.loads(rigs[name]) for name in sorted(rigs)],
        results=_stream(streams.get(names.results_stream)),
        dead=_stream(streams.get(names.dead_stream)),
    )


async def _hops(broker: Broker, pipelines: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Pipeline, stage and stream of each queue, in the order in which work passes them."""
    names = broker.names
    hops = [("", SPLIT, names.media_stream)]
    for spec in await asyncio.gather(*(load_pipeline(broker, pipelines[name]) for name in sorted(pipelines))):
        stages = [*(stage.name for stage in spec.stage), COLLECT]
        hops += [(spec.name, stage, names.work_stream(spec.name, stage)) for stage in stages]
    return hops


async def _queue(broker: Broker, pipeline: str, stage: str, info: Info) -> QueueStatus:
    consumers = await listed(broker, f"CONSUMER.LIST.{info['config']['name']}", "consumers")
    if stage == SPLIT:  # a consumer for each pipeline, no lanes
        lanes = {Lane.INTERACTIVE: _lane(consumers)}
    else:
        lanes = {lane: _lane([each for each in consumers if each["name"] == lane.value]) for lane in Lane}
    return QueueStatus(pipeline, stage, _stream(info), lanes, sum(each["num_waiting"] for each in consumers))


def _lane(consumers: Sequence[Info]) -> LaneStatus:
    return LaneStatus(
        waiting=sum(each["num_pending"] for each in consumers),
        in_flight=sum(each["num_ack_pending"] for each in consumers),
        redelivered=sum(each["num_redelivered"] for each in consumers),
    )


def _stream(info: Info | None) -> StreamStatus:
    if info is None:
        return StreamStatus()
    state, limit = info["state"], info["config"]["max_bytes"]
    oldest_s = 0.0
    if state["messages"]:  # both times are the server's, so that no clock needs to agree with ours
        oldest_s = (datetime.fromisoformat(info["ts"]) - datetime.fromisoformat(state["first_ts"])).total_seconds()
    return StreamStatus(state["messages"], state["bytes"], max(0, limit), max(0.0, oldest_s))
