"""The rigs and workers of the fleet: what they do, and orders to take no more work, and to take it again."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from gateway.callers import Operator, Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.broker import Broker
from pipelines.orders import Kind, Order, all_orders, give_order, order_of
from pipelines.status import process_statuses

router = checked_router(tags=["machines"])


class WorkerView(BaseModel):
    """A worker process, by its last status, which is at most some seconds old."""

    name: str
    rig: str
    device: str
    gpu: str = Field(description="empty for the CPU")
    stages: list[str]
    state: str = Field(description="starting, idle, working, cordoned, off hours or draining")
    why: str = Field(description="why it is not ready for a pipeline; empty when it is")
    order: Order
    in_flight: int = Field(description="messages that it holds")
    rss_bytes: int
    at: float = Field(description="when it reported this, in seconds since 1970")


class RigView(BaseModel):
    """A machine, by its last status. One that stopped or was lost is listed as long as the setting rigs_age_s says."""

    name: str
    host: str
    state: str = Field(description="working, draining, stopped or lost")
    since: float = Field(description="when it stopped or was lost, in seconds since 1970; 0 while it runs")
    order: Order
    workers: list[str]
    metrics: str = Field(description="URL of its metrics; empty for none")
    at: float


class WorkerList(BaseModel):
    """The workers of the fleet."""

    workers: list[WorkerView]


class RigList(BaseModel):
    """The rigs of the fleet; workers of `rigflow up` and `rigflow run` have none."""

    rigs: list[RigView]


class Action(StrEnum):
    """What a worker or a rig is to do."""

    CORDON = "cordon"
    DRAIN = "drain"
    RESUME = "resume"


class Ordered(BaseModel):
    """The order that a worker or a rig has now; it stays over restarts."""

    name: str
    order: Order


@router.get("/workers")
async def workers(caller: Reader, broker: Connected) -> WorkerList:
    """List the workers of the fleet."""
    orders, (found, _) = await all_orders(broker), await process_statuses(broker)
    return WorkerList(workers=[_worker(each, orders) for each in found])


@router.get("/rigs")
async def rigs(caller: Reader, broker: Connected) -> RigList:
    """List the rigs of the fleet."""
    orders, (_, found) = await all_orders(broker), await process_statuses(broker)
    return RigList(
        rigs=[
            RigView(
                name=each["rig"],
                host=each["host"],
                state=each["state"],
                since=each["since_s"],
                order=orders.get(("rig", each["rig"]), Order.WORK),
                workers=[slot["worker"] for slot in each["workers"]],
                metrics=each["metrics"],
                at=each["at_s"],
            )
            for each in found
        ]
    )


@router.post("/workers/{name}/{action}")
async def order_worker(name: str, action: Action, caller: Operator, broker: Connected) -> Ordered:
    """Have a worker take no more work (cordon), hand back what it holds, too (drain), or work again (resume)."""
    return await _ordered(broker, "worker", name, action)


@router.post("/rigs/{name}/{action}")
async def order_rig(name: str, action: Action, caller: Operator, broker: Connected) -> Ordered:
    """The same for all workers of a rig."""
    return await _ordered(broker, "rig", name, action)


async def _ordered(broker: Broker, kind: Kind, name: str, action: Action) -> Ordered:
    order = Order.WORK if action is Action.RESUME else Order(action.value)
    await give_order(broker, kind, name, order)
    return Ordered(name=name, order=order)


def _worker(status: dict[str, Any], orders: dict[tuple[str, str], Order]) -> WorkerView:
    name, rig = status["worker"], str(status.get("rig", ""))
    return WorkerView(
        name=name,
        rig=rig,
        device=status["device"],
        gpu=str(status.get("gpu", {}).get("name", "")),
        stages=status["stages"],
        state=status["state"],
        why=status.get("why", ""),
        order=order_of(orders, name, rig),
        in_flight=status["in_flight"],
        rss_bytes=status["rss_bytes"],
        at=status["at_s"],
    )
