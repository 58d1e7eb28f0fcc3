"""Placements that the rigs of a fleet have agreed on. They expire when no rig renews them: workers do all then."""

from collections.abc import AsyncIterator

from pipelines.broker import DELETED, Broker
from pipelines.follow import follow_bucket
from pipelines.values import decoded
from schemas.placed import PlacedPipeline

KEY = "placement"


async def known_placement(broker: Broker, pipeline: str) -> tuple[PlacedPipeline | None, int]:
    """The placement of a pipeline that is in force, and its place in the stream for `agree`. Raises BrokerError."""
    bucket, key = broker.names.rigs, f"{KEY}.{pipeline}"
    entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
    if entry is None:
        return None, 0
    return (None if DELETED in entry.headers else _parse(key, entry.body)), entry.sequence


async def agree(broker: Broker, placed: PlacedPipeline, sequence: int) -> bool:
    """Store a placement, or renew it, unless another rig did so since it was read. Raises BrokerError."""
    body = placed.model_dump_json().encode()
    return await broker.replace(broker.names.rigs, f"{KEY}.{placed.pipeline}", body, sequence) is not None


async def all_placements(broker: Broker) -> list[PlacedPipeline]:
    """All placements in force, by name of the pipeline. Raises BrokerError."""
    found = await broker.items(broker.names.rigs, f"{KEY}.*")
    parsed = (_parse(key, body) for key, body in sorted(found.items()))
    return [placed for placed in parsed if placed is not None]


async def follow_placements(broker: Broker) -> AsyncIterator[PlacedPipeline]:
    """Placements as they are, and whenever one is decided or renewed, for ever."""
    async for key, body in follow_bucket(broker, broker.names.rigs, f"{KEY}.*"):
        if (placed := _parse(key, body)) is not None:
            yield placed


def _parse(key: str, body: bytes) -> PlacedPipeline | None:
    placed = decoded(PlacedPipeline, body, f"the entry {key}")
    return placed if placed is not None and key == f"{KEY}.{placed.pipeline}" else None
