"""What a fleet does now: queues, workers, results and dead letters, as the broker tells it."""

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.broker import Broker
from pipelines.registry import pipeline_names
from schemas.messages import Lane
from schemas.subjects import SPLIT

SILENT_S = 6.0  # three reports missed


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane of a hop: messages that `wait`, those in workers' hands, those of them delivered before."""

    waiting: int = 0
    in_flight: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class HopStatus:
    """The queue in front of one stage. `oldest_s`: age of its first message; `hungry`: requests that wait for work."""

    pipeline: str
    stage: str
    messages: int
    nbytes: int
    limit_bytes: int
    oldest_s: float
    hungry: int
    lanes: dict[str, LaneStatus]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream that is no queue: results, dead letters."""

    messages: int = 0
    nbytes: int = 0
    limit_bytes: int = 0
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker last said of itself, `silent_s` ago."""

    name: str
    host: str
    pid: int
    stages: tuple[str, ...]
    state: str
    in_hand: int
    rss_bytes: int
    counts: dict[str, int]
    silent_s: float


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """All of it, at one moment. `pipelines`: name -> revision."""

    store_bytes: int
    pipelines: dict[str, str]
    hops: tuple[HopStatus, ...]
    workers: tuple[WorkerStatus, ...]
    results: StreamStatus
    dead: StreamStatus


async def fleet_status(broker: Broker) -> FleetStatus:
    """Ask the broker. Raises BrokerError."""
    names = broker.names
    account, pipelines, streams, workers = await asyncio.gather(
        broker.api("INFO"), pipeline_names(broker), _listed(broker, "STREAM.LIST", "streams"), _workers(broker)
    )
    of_name = {info["config"]["name"]: info for info in streams}
    media = of_name.get(names.media_stream)
    hops = await asyncio.gather(*(_hop(broker, info) for info in streams if _is_hop(broker, info)))
    raw = await _media_hops(broker, media) if media else []
    order = {hop.stage: number for number, hop in enumerate(hops)}
    ...
