"""Orders to workers: to take no more work, and to take it again. They stay until another order, over restarts too.

`order.worker.NAME` and `order.rig.NAME` in the bucket of pipelines, which workers follow anyway, have the order of one
worker and of all workers of a rig.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.status import process_statuses
from schemas.errors import NotFound, UsageError
from schemas.states import ENDED

Kind: TypeAlias = Literal["worker", "rig"]

CARRIED_OUT_S = 5.0  # a worker reports its state about once a second
_LOOK_S = 0.1
CORDONED = "cordoned"
TAKING_WORK = ("working", "idle")
STARTING = "starting"  # it will, once its engines are loaded


class Order(StrEnum):
    """What a worker is to do; the last one that applies to it counts, of its own and its rig's the stricter one."""

    WORK = "work"
    CORDON = "cordon"  # take no more messages, and finish those in flight
    DRAIN = "drain"  # the same, and hand back what is not finished within `stop_grace_s`


_STRICTER = (Order.WORK, Order.CORDON, Order.DRAIN)


async def give_order(broker: Broker, kind: Kind, name: str, order: Order) -> None:
    """Give an order to a worker, or to all workers of a rig. Raises NotFound when the fleet knows none of that name."""
    known = await _known(broker, kind)
    if name not in known and (kind, name) not in await all_orders(broker):
        other: Kind = "rig" if kind == "worker" else "worker"
        is_other = name in await _known(broker, other)
        raise NotFound(f"there is no {kind} {name[:100]!a}", f"it is a {other}" if is_other else _there(kind, known))
    await audit(broker, f"{kind}-ordered", name, order=order.value)
    await broker.put(broker.names.pipelines, f"order.{kind}.{name}", order.value.encode())


async def carried_out(broker: Broker, kind: Kind, name: str, within_s: float = CARRIED_OUT_S) -> bool:
    """Wait until the status of a worker, or of all workers of a rig, agrees with its orders; whether it does."""
    orders = await all_orders(broker)
    try:
        async with asyncio.timeout(within_s):
            while True:
                workers, _ = await process_statuses(broker)
                if not any(_differs(each, orders) for each in workers if each.get(kind) == name):
                    return True
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return False


def _differs(worker: Mapping[str, Any], orders: Mapping[tuple[str, str], Order]) -> bool:
    takes_work = order_of(orders, worker["worker"], worker.get("rig", "")) is Order.WORK
    return worker["state"] == CORDONED if takes_work else worker["state"] in TAKING_WORK


async def forget_rig(broker: Broker, name: str) -> None:
    """Forget a rig that stopped or was lost, and its order. Raises NotFound, UsageError when it runs."""
    known = await _known(broker, "rig")
    if name not in known:
        raise NotFound(f"there is no rig {name[:100]!a}", _there("rig", known))
    if known[name] not in ENDED:
        raise UsageError(f"rig {name} is {known[name]}", "stop it first, by SIGTERM")
    await audit(broker, "rig-forgotten", name)
    await broker.delete_key(broker.names.last_seen, f"rig.{name}")
    await broker.delete_key(broker.names.rigs, f"rig.{name}")
    await broker.delete_key(broker.names.pipelines, f"order.rig.{name}")


async def _known(broker: Broker, kind: Kind) -> dict[str, str]:
    """The workers or rigs that the fleet knows, and their states."""
    workers, rigs = await process_statuses(broker)
    return {each[kind]: each["state"] for each in (workers if kind == "worker" else rigs)}


def _there(kind: Kind, names: Iterable[str]) -> str:
    there = ", ".join(sorted(names))
    return f"known are {there}" if there else f"no {kind} has been here; see `rigflow status`"


async def all_orders(broker: Broker) -> dict[tuple[str, str], Order]:
    """The order of each worker and rig that has one, by kind and name."""
    found = await broker.items(broker.names.pipelines, "order.*.*")
    places = {tuple(key.split(".")[1:]): _parse(body) for key, body in found.items()}
    return {(kind, name): order for (kind, name), order in places.items()}


def order_of(orders: Mapping[tuple[str, str], Order], worker: str, rig: str) -> Order:
    """The order that applies to a worker: of its own and its rig's the stricter one."""
    given = (orders.get(("worker", worker), Order.WORK), orders.get(("rig", rig), Order.WORK))
    return max(given, key=_STRICTER.index)


async def follow_orders(broker: Broker, worker: str, rig: str) -> AsyncIterator[Order]:
    """The order of a worker as it is and whenever it changes, for ever."""
    orders: dict[tuple[str, str], Order] = {}
    now = Order.WORK
    async for key, body in follow_bucket(broker, broker.names.pipelines, "order.*.*"):
        _, kind, name = key.split(".")
        if (kind, name) in (("worker", worker), ("rig", rig)):
            orders[kind, name] = _parse(body)
            order = order_of(orders, worker, rig)
            if order is not now:
                now = order
                yield order


def _parse(body: bytes) -> Order:
    """An order; what cannot be read, because another version of rigflow wrote it, is none."""
    text = body.decode(errors="replace")
    return Order(text) if text in _STRICTER else Order.WORK
