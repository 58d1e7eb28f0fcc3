"""What tests of cards ask of a fleet."""

import asyncio
from collections.abc import Awaitable, Callable

from pipelines.broker import Broker
from pipelines.card_list import CardLine, all_cards
from pipelines.status import running_statuses
from schemas.cards import CardState


async def states(broker: Broker) -> dict[str, str]:
    """The state of each worker that reports."""
    workers, _ = await running_statuses(broker)
    return {str(worker["worker"]): str(worker["state"]) for worker in workers}


async def lines(broker: Broker) -> dict[str, CardLine]:
    """The cards of the fleet by name."""
    return {line.card: line for line in await all_cards(broker)}


async def quarantined(broker: Broker) -> set[str]:
    """The cards that are quarantined."""
    return {card for card, line in (await lines(broker)).items() if line.state is CardState.QUARANTINED}


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.1)


async def until_state(broker: Broker, worker: str, *wanted: str) -> None:
    """Wait until a worker reports one of these states."""

    async def holds() -> bool:
        return (await states(broker)).get(worker) in wanted

    await until(holds)
