"""The whole fleet at one moment, as `rigflow status` shows it: queues, workers with their cards, the bottleneck."""

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from gateway.callers import Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.bottleneck import bottleneck
from pipelines.card_list import CardLine, card_lines
from pipelines.cards import readable_records
from pipelines.orders import Order, all_orders, order_of
from pipelines.status import QueueStatus, fleet_status
from schemas.jobs import Priority

router = checked_router(tags=["machines"])


class QueueView(BaseModel):
    """The queue in front of a stage."""

    pipeline: str
    stage: str
    messages: int
    bytes: int
    limit_bytes: int
    oldest_s: float = Field(description="age of its first message")
    interactive: int = Field(description="messages of interactive jobs that wait")
    bulk: int
    in_flight: int


class FleetView(BaseModel):
    """The fleet. Workers are as they report themselves: device, state, stages, what they compute now, their card."""

    bottleneck: str = Field(description="one sentence: the stage that the fleet waits for, with its figures")
    store_bytes: int
    dead_letters: int
    queues: list[QueueView]
    workers: list[dict[str, Any]]
    rigs: list[dict[str, Any]]
    cards: list[CardLine] = Field(description="cards that take no work, and why")


@router.get("/fleet")
async def fleet(caller: Reader, broker: Connected) -> FleetView:
    """Show the whole fleet."""
    status, orders, records = await asyncio.gather(fleet_status(broker), all_orders(broker), readable_records(broker))
    return FleetView(
        bottleneck=bottleneck(status),
        store_bytes=status.store_bytes,
        dead_letters=status.dead.messages,
        queues=[_queue(each) for each in status.queues],
        workers=[
            dict(each) | {"order": order_of(orders, each["worker"], str(each.get("rig", "")))}
            for each in status.workers
        ],
        rigs=[dict(each) | {"order": orders.get(("rig", each["rig"]), Order.WORK)} for each in status.rigs],
        cards=[line for line in card_lines(status.workers, status.rigs, records, ()) if line.reason],
    )


def _queue(queue: QueueStatus) -> QueueView:
    priorities = queue.priorities
    return QueueView(
        pipeline=queue.pipeline,
        stage=queue.stage,
        messages=queue.stream.messages,
        bytes=queue.stream.nbytes,
        limit_bytes=queue.stream.limit_bytes,
        oldest_s=queue.stream.oldest_s,
        interactive=priorities[Priority.INTERACTIVE].waiting,
        bulk=priorities[Priority.BULK].waiting,
        in_flight=sum(each.in_flight for each in priorities.values()),
    )
