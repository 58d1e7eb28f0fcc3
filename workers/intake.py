"""What a worker takes in, and when: credit in items, bytes and seconds.

A worker that is busy for longer than `lead_s` asks for nothing, so that work never waits with a slow worker while a
fast one idles; one that is about to run dry asks in time, so that the broker's round trip costs it nothing.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pipelines.broker import Broker
from pipelines.pull import Delivery, Pull
from schemas.messages import Lane
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import SPLIT
from workers.lease import Hop, Lease

Accept = Callable[[Hop, Delivery], Coroutine[Any, Any, None]]


class Hand:
    """The leases a worker holds, and how long the work on them will take."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self._pace_s: dict[tuple[str, str], float] = {}
        self._computing: tuple[Lease, float] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all inputs in hand."""
        return sum(lease.nbytes for lease in self.leases)

    def pace_s(self, hop: Hop) -> float:
        """Seconds that one item of a hop takes, as a moving average; 0 before the first."""
        return self._pace_s.get((hop.pipeline, hop.stage), 0.0)

    def take(self, lease: Lease) -> None:
        """A lease came in."""
        lease.expected_s = self.pace_s(lease.hop)
        self.leases.add(lease)

    def finish(self, lease: Lease) -> None:
        """A lease is settled; what it took is what the next of its kind will take."""
        self.leases.discard(lease)
        known = self.pace_s(lease.hop)
        pace = lease.spent_s if known == 0.0 else 0.7 * known + 0.3 * lease.spent_s
        self._pace_s[lease.hop.pipeline, lease.hop.stage] = pace

    def computing(self, lease: Lease | None) -> None:
        """A step on `lease` begins; None: the step ends."""
        now = time.monotonic()
        if self._computing is not None:
            self._computing[0].spent_s += now - self._computing[1]
        self._computing = None if lease is None else (lease, now)

    def remaining_s(self) -> float:
        """Seconds until all leases in hand are through, as far as their paces tell."""
        remaining = sum(max(0.0, lease.expected_s - lease.spent_s) for lease in self.leases)
        if self._computing is not None:
            remaining -= time.monotonic() - self._computing[1]
        return max(0.0, remaining)


class Intake:
    """Keeps the right number of requests open on every hop that this worker hosts."""

    def __init__(self, broker: Broker, settings: Settings, hand: Hand, accept: Accept) -> None:
        self._broker = broker
        self._settings = settings
        self._hand = hand
        self._accept = accept
        self._pulls: dict[Hop, Pull] = {}
        self._pulls_beside: dict[Hop, Pull] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._closed = False

    async def host(self, spec: PipelineSpec, stages: list[str]) -> None:
        """Take from the hops in front of `stages` too, both lanes."""
        for stage in stages:
            stream = self._broker.names.work_stream(spec.name, stage)
            for lane in Lane:
                hop = Hop(spec.name, stage, lane)
                if hop not in self._pulls:
                    self._pulls[hop] = await self._open(hop, stream, lane.value, self._accept)
        self.refill()

    async def host_beside(self, spec: PipelineSpec, stage: str, handle: Accept, limit: int) -> None:
        """Take work of `split` or `collect`: it mostly waits, so up to `limit` run beside the computing."""
        names = self._broker.names
        queues = (
            [(names.media_stream, spec.name, Lane.INTERACTIVE)]
            if stage == SPLIT
            else [(names.work_stream(spec.name, stage), lane.value, lane) for lane in Lane]
        )
        for stream, consumer, lane in queues:
            hop = Hop(spec.name, stage, lane)
            if hop in self._pulls_beside:
                continue

            async def accept(hop: Hop, delivery: Delivery) -> None:
                task = asyncio.create_task(handle(hop, delivery))
                self._beside.add(task)
                task.add_done_callback(functools.partial(self._done_beside, self._pulls_beside[hop]))

            self._pulls_beside[hop] = await self._open(hop, stream, consumer, accept)
            self._pulls_beside[hop].request(limit)

    def _done_beside(self, pull: Pull, task: "asyncio.Task[None]") -> None:
        self._beside.discard(task)
        if not self._closed:
            pull.request(1)

    async def _open(self, hop: Hop, stream: str, consumer: str, accept: Accept) -> Pull:
        async def on_delivery(delivery: Delivery) -> None:
            await accept(hop, delivery)

        pull = Pull(self._broker, stream, consumer, on_delivery)
        await pull.open()
        return pull

    def refill(self) -> None:
        """Ask for as much as there is credit for; called whenever a lease comes, goes or makes progress."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._closed:
            return
        room = self._settings.credit_items - len(self._hand.leases)
        if room <= 0 or self._hand.nbytes >= self._settings.credit_bytes:
            return
        lead_s = self._settings.lead_s - self._hand.remaining_s()
        if self._hand.leases and lead_s <= 0.0:
            self._later = asyncio.get_running_loop().call_later(0.001 - lead_s, self.refill)
            return
        for hop, pull in self._pulls.items():
            pace_s = self._hand.pace_s(hop)
            wanted = 1 if pace_s == 0.0 else min(room, 1 + int(max(0.0, lead_s) / pace_s))
            if wanted > pull.outstanding:
                pull.request(wanted - pull.outstanding)

    async def close(self) -> None:
        """Ask for nothing more; what still arrives is handed back."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        pulls = (*self._pulls.values(), *self._pulls_beside.values())
        await asyncio.gather(*(pull.close() for pull in pulls))
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
