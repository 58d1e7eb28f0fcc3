"""Orders to workers: to take no more work, and to take it again. They stay until another order, over restarts too.

`order.worker.NAME` and `order.rig.NAME` in the bucket of pipelines, which workers follow anyway, have the order of one
worker and of all workers of a rig.
"""

from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from schemas.declared import is_token
from schemas.errors import UsageError


class Order(StrEnum):
    """What a worker is to do; the last one that applies to it counts, of its own and its rig's the stricter one."""

    WORK = "work"
    CORDON = "cordon"  # take no more messages, and finish those in flight
    DRAIN = "drain"  # the same, and hand back what is not finished within `stop_grace_s`


_STRICTER = (Order.WORK, Order.CORDON, Order.DRAIN)


async def give_order(broker: Broker, kind: str, name: str, order: Order) -> None:
    """Give an order to a `worker` or all workers of a `rig`. Raises UsageError for a name that none can have."""
    if not is_token(name):
        raise UsageError(f"{name[:100]!a} cannot be the name of a {kind}", "GET /api/v1/workers lists them")
    await broker.put(broker.names.pipelines, f"order.{kind}.{name}", order.value.encode())


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
