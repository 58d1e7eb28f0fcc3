"""Follows the orders to a worker: to take no more work, to hand back what it holds, to work again."""

import asyncio
import logging

from pipelines.broker import Broker
from pipelines.orders import Order, follow_orders
from workers.options import WorkerOptions
from workers.runner import Runner
from workers.telemetry import Event, log_event

POLL_S = 0.1


async def follow(broker: Broker, runner: Runner, options: WorkerOptions, name: str) -> None:
    """Obey orders until cancelled."""
    draining: asyncio.Task[None] | None = None
    try:
        async for order in follow_orders(broker, name, options.rig):
            log_event(Event("ordered", f"worker {name} is ordered to {order.value}", logging.INFO, {"worker": name}))
            if draining is not None:
                draining.cancel()
            if order is Order.WORK:
                runner.intake.uncordon()
                continue
            runner.intake.cordon()
            if order is Order.DRAIN:
                draining = asyncio.create_task(_hand_back(runner, options.settings.stop_grace_s))
    finally:
        if draining is not None:
            draining.cancel()


async def _hand_back(runner: Runner, grace_s: float) -> None:
    """Hand back what is not finished within `grace_s`: other workers get it at once."""
    try:
        async with asyncio.timeout(grace_s):
            while runner.in_flight.messages or runner.in_flight.io_messages:  # noqa: ASYNC110, they end in many places
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        await runner.intake.io.hand_back()
        await runner.in_flight.hand_back_all()
