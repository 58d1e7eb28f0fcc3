"""Compares streams and consumers of the broker with those that pipelines need, and changes them.

Several processes may apply at the same time, and more than once: no stream is shared between pipelines, no limit is
lowered where the broker would delete messages for it, and the difference is taken again until there is none.

The operator of a fleet calls `apply_topology`, which changes settings. Publishers call `ensure_topology`, which creates
what is missing and changes nothing else.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.broker import ApiError, Broker
from pipelines.jetstream import ATTEMPTS, pause
from pipelines.streams import Config, StreamPlan, desired, replicated
from schemas.errors import BrokerError, StoreError
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.text import size

ROUNDS = 8


# JetStream's own error numbers
IN_USE, CONSUMER_EXISTS, NO_SUCH_SUBJECT, OVERLAP, NO_STORAGE = 10058, 10148, 10093, 10065, 10047
NO_CLUSTER, NO_PEERS, NO_RESOURCES = 10074, 10005, 10023
CHANGED_CONCURRENTLY = frozenset({IN_USE, CONSUMER_EXISTS, NO_SUCH_SUBJECT})


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what is and what should be. A change that is `refuse`d is reported and not made."""

    action: Literal["create", "update", "refuse"]
    stream: str
    consumer: str = ""
    config: Config = field(default_factory=dict)
    reason: str = ""
    before: Config = field(default_factory=dict)

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Field of JetStream's configuration -> its value before and after the change."""
        return {
            key: (self.before.get(key), value)
            for key, value in self.config.items()
            if (self.before.get(key) or None) != (value or None)
        }


async def ensure_topology(broker: Broker, settings: Settings, specs: Sequence[PipelineSpec]) -> list[Change]:
    """Create what these pipelines lack, with as many copies as existing streams have. Nothing that exists is changed.

    Returns the changes that were made. Raises BrokerError, StoreError.
    """
    made: list[Change] = []
    await _until_equal(broker, desired(broker.names, settings, specs, broker.tenants), keep=True, made=made)
    return made


async def apply_topology(broker: Broker, settings: Settings, specs: Sequence[PipelineSpec]) -> list[Change]:
    """Make all changes that these pipelines need; returns the refused ones. Raises BrokerError, StoreError."""
    return await _until_equal(broker, desired(broker.names, settings, specs, broker.tenants), keep=False)


async def _until_equal(
    broker: Broker, wanted: Sequence[StreamPlan], keep: bool, made: list[Change] | None = None
) -> list[Change]:
    for _ in range(ROUNDS):
        changes = await plan(broker, wanted, keep)
        if all(change.action == "refuse" for change in changes):
            return changes
        await apply(broker, changes)
        if made is not None:
            made += changes
    raise BrokerError("the broker's streams keep changing", "does a rigflow of another version use the same prefix?")


async def plan(broker: Broker, wanted: Sequence[StreamPlan], keep: bool = False) -> list[Change]:
    """How the broker differs from `wanted`; with `keep`, only what it lacks. Raises BrokerError."""
    found = {info["config"]["name"]: info for info in await listed(broker, "STREAM.LIST", "streams")}
    if keep:
        wanted = _as_durable_as(found, _without_dead(broker.names, found, wanted))
    differing = (stream for stream in wanted if not keep or stream.name not in found)
    changes = [change for stream in differing for change in _stream_changes(stream.config, found.get(stream.name))]
    for of_one in await asyncio.gather(
        *(_consumer_changes(broker, stream, stream.name in found) for stream in wanted if stream.consumers)
    ):
        changes += [change for change in of_one if not keep or change.action == "create"]
    return changes


async def apply(broker: Broker, changes: Sequence[Change]) -> None:
    """Make these changes, streams before consumers, and first those that may free subjects for new streams.

    Raises BrokerError, StoreError.
    """
    for for_consumers, action in ((False, "update"), (False, "create"), (True, "update"), (True, "create")):
        now = [change for change in changes if (bool(change.consumer), change.action) == (for_consumers, action)]
        await asyncio.gather(*(_make(broker, change) for change in now))


def _as_durable_as(found: Mapping[str, Config], wanted: Sequence[StreamPlan]) -> list[StreamPlan]:
    """`wanted` with as many copies as the fleet's streams have: the operator of a fleet decides that number."""
    replicas = max(
        (found[stream.name]["config"]["num_replicas"] for stream in wanted if stream.name in found), default=0
    )
    return [replicated(stream, replicas or stream.config["num_replicas"]) for stream in wanted]


def _without_dead(names: Names, found: Mapping[str, Config], wanted: Sequence[StreamPlan]) -> Sequence[StreamPlan]:
    """`wanted` without tenants' own dead letters where the shared stream takes all: `topology apply` changes that."""
    shared = found.get(names.dead_stream)
    if shared is None or f"{names.prefix}.dead.>" not in shared["config"]["subjects"]:
        return wanted
    own = {names.dead_of(tenant) for tenant in names.tenants} - {names.dead_stream}
    return [stream for stream in wanted if stream.name not in own]


# what differs


def _stream_changes(wanted: Config, info: Config | None) -> list[Change]:
    name = wanted["name"]
    if info is None:
        return [Change("create", name, config=wanted)]
    current, merged = info["config"], dict(wanted)
    changes = []
    if info["state"]["messages"] > 0:
        keeps = current.get("discard") == merged["discard"] == "new"  # a full one refuses messages, and deletes none
        for limit in ("max_age",) if keeps else ("max_bytes", "max_age"):
            if _lower(merged[limit], current.get(limit, 0)):
                reason = (
                    f"{limit} stays at {current.get(limit, 0)}, because it holds {info['state']['messages']} messages"
                )
                changes.append(Change("refuse", name, reason=reason))
                merged[limit] = current.get(limit, 0)
    if _differs(merged, current):
        changes.append(Change("update", name, config=current | merged, before=current))
    return changes


def _lower(limit: int, than: int) -> bool:
    """Whether a limit is stricter than another; 0 and -1 are no limit."""
    return limit > 0 and (than <= 0 or limit < than)


async def _consumer_changes(broker: Broker, stream: StreamPlan, exists: bool) -> list[Change]:
    infos = await listed(broker, f"CONSUMER.LIST.{stream.name}", "consumers") if exists else []
    found = {info["name"]: info["config"] for info in infos}
    changes = []
    for wanted in stream.consumers:
        name = wanted["durable_name"]
        if name not in found:
            changes.append(Change("create", stream.name, name, wanted))
        elif _differs(wanted, found[name]):
            changes.append(Change("update", stream.name, name, found[name] | wanted, before=found[name]))
    return changes


def _differs(wanted: Config, current: Config) -> bool:
    """Whether a field that we set has another value. The server leaves out fields that are zero or false."""
    return any((current.get(key) or None) != (value or None) for key, value in wanted.items())


async def listed(broker: Broker, action: str, what: str) -> list[Config]:
    """All pages of a list, once every node has answered for what it leads."""
    found: list[Config] = []
    for attempt in range(1, ATTEMPTS + 1):
        while True:
            page = await broker.api(action, {"offset": len(found)})
            found += page.get(what) or []
            if page.get("missing") or len(found) >= page["total"]:
                break
        if not page.get("missing"):
            return found
        found = []
        await pause(attempt)
    leaderless = ", ".join(page["missing"])
    raise BrokerError(f"the broker's cluster has no leader for {leaderless}", "are two of its three nodes up?")


# making it so


async def _make(broker: Broker, change: Change) -> None:
    action, arguments = f"STREAM.{change.action.upper()}.{change.stream}", change.config
    if change.consumer:
        action = f"CONSUMER.CREATE.{change.stream}.{change.consumer}"
        if subject := change.config.get("filter_subject"):
            action += f".{subject}"
        arguments = {"stream_name": change.stream, "config": change.config, "action": change.action}
    try:
        await broker.api(action, arguments)
    except ApiError as error:
        if error.code == NO_STORAGE:
            room = size(change.config.get("max_bytes", 0))
            tenants = tuple(f"{mark}{tenant}" for tenant in broker.names.tenants for mark in "_@")
            is_own = change.stream.endswith(tenants)
            lower = "storage_bytes of its tenant" if is_own else "queue_bytes and results_bytes"
            hint = f"raise the broker's max_file (store_bytes of `rigflow up`), or lower {lower}"
            raise StoreError(f"the broker's store has no room for {room} of {change.stream}", hint) from error
        if error.code in (NO_CLUSTER, NO_PEERS, NO_RESOURCES):
            copies = change.config.get("num_replicas", 1)
            hint = "durability cluster needs three connected nodes with room; see docs/operations.md"
            raise BrokerError(
                f"the broker cannot keep {copies} copies of {change.stream} ({error.what})", hint
            ) from error
        if error.code == OVERLAP:
            hint = "use another --prefix"
            raise BrokerError(f"another stream takes the subjects of {change.stream}", hint) from error
        if error.code not in CHANGED_CONCURRENTLY:
            raise
