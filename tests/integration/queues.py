"""A broker with one small pipeline's streams, and a pull that notes what it gets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.publish import Publisher
from pipelines.pull import Pull
from pipelines.registry import publish_pipeline
from pipelines.topology import apply_topology
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings

MIB = 1 << 20
SPEC = PipelineSpec.model_validate(
    {
        "name": "p",
        "media": "video",
        "stage": [{"kind": "decode"}, {"kind": "resize", "layout": "planes"}, {"kind": "encode", "format": "npz"}],
    }
)


@asynccontextmanager
async def a_broker(settings: Settings) -> AsyncIterator[Broker]:
    """A connected broker that has the streams of `SPEC`."""
    broker = await Broker.connect(settings)
    try:
        await apply_topology(broker, settings, [SPEC])
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def a_fleet(settings: Settings) -> AsyncIterator[tuple[Broker, Publisher]]:
    """A broker that knows the pipeline `SPEC`, and a publisher of it; no worker."""
    async with a_broker(settings) as broker:
        yield broker, Publisher(broker, await publish_pipeline(broker, SPEC, {}), "main", Priority.BULK)


@asynccontextmanager
async def a_pull(broker: Broker, requests: int = 0, priority: Priority = Priority.BULK) -> AsyncIterator["Taken"]:
    """A pull on the decode queue."""
    taken = Taken()
    pull = taken.pull = Pull(broker, broker.names.work_stream("p", "decode"), priority.value, taken.take)
    await pull.open()
    pull.request(requests)
    try:
        yield taken
    finally:
        await pull.close()


class Taken:
    """What a pull delivered."""

    pull: Pull

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery._body or b"" for delivery in self.deliveries]

    async def until(self, count: int, within_s: float = 60.0) -> None:
        await eventually(lambda: len(self.deliveries) >= count, within_s)
        assert len(self.deliveries) == count


async def eventually(holds: Callable[[], bool | Awaitable[bool]], within_s: float = 60.0) -> None:
    """Wait until `holds`, which may be async, is true."""
    async with asyncio.timeout(within_s):
        while not (await held if isinstance(held := holds(), Awaitable) else held):
            await asyncio.sleep(0.002)


def queue_subject(broker: Broker, priority: Priority = Priority.BULK) -> str:
    return broker.names.work("p", "decode", priority)


async def waiting_in_queue(broker: Broker) -> int:
    return int((await broker.api(f"STREAM.INFO.{broker.names.work_stream('p', 'decode')}"))["state"]["messages"])


async def queue_is_empty(broker: Broker) -> bool:
    """Whether every message of the decode queue is settled; the server takes a verdict a moment after it was given."""
    return await waiting_in_queue(broker) == 0
