"""What a worker takes in, and when: credit in items, bytes and seconds.

A worker that is busy for longer than its lead (`lead_s`, less where items are long) asks for nothing, and takes back
what it had asked for, so that work never waits with a slow worker while a fast one idles; one that is about to run dry
asks in time, so that the broker's round trip costs it nothing.
"""

import asyncio
import functools
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pipelines.broker import Broker
from pipelines.pull import Delivery, Pull
from schemas.messages import Lane
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import SPLIT
from workers.lease import Hop, Lease

Accept = Callable[[Hop, Delivery], Coroutine[Any, Any, None]]


PATIENCE_S = 0.005  # a hop that held work a moment ago answers within this, or others have emptied it
TAIL = 1 / 8  # of its own time: what a long item may wait with a worker before it begins
BULK_TURN = 8  # every eighth time bulk is asked first, so that it never starves


class Hand:
    """The leases a worker holds, and how long the work on them will take."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self._pace_s: dict[tuple[str, str], float] = {}
        self._computing: Sequence[Lease] = ()
        self._since_s = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all inputs in hand."""
        return sum(lease.nbytes for lease in self.leases)

    def pace_s(self, hop: Hop) -> float:
        """Seconds that one item of a hop takes, as a moving average; infinite before the first: nobody knows."""
        return self._pace_s.get((hop.pipeline, hop.stage), math.inf)

    def lead_s(self, most_s: float) -> float:
        """Seconds before the work in hand ends that more is asked for: `most_s`, less while a long item is in hand.

        The last item of a job ends that much later than it must. Of short items several fit into the lead, and it
        hides what the broker's answers vary; a long one needs only the round trip hidden.
        """
        longest_s = max((lease.expected_s for lease in self.leases), default=0.0)
        return min(most_s, max(most_s * most_s / longest_s, TAIL * longest_s)) if longest_s else most_s

    def take(self, lease: Lease) -> None:
        """A lease came in."""
        lease.expected_s = self.pace_s(lease.hop)
        self.leases.add(lease)

    def finish(self, lease: Lease) -> None:
        """A lease is settled; what it took is what the next of its kind will take."""
        self.leases.discard(lease)
        known = self.pace_s(lease.hop)
        pace = lease.spent_s if known == math.inf else 0.7 * known + 0.3 * lease.spent_s
        self._pace_s[lease.hop.pipeline, lease.hop.stage] = pace

    def computing(self, leases: Sequence[Lease]) -> None:
        """A step on `leases` together begins; none: the step ends. Its time is shared among them."""
        now = time.monotonic()
        for lease in self._computing:
            lease.spent_s += (now - self._since_s) / len(self._computing)
        self._computing, self._since_s = leases, now

    def remaining_s(self) -> float:
        """Seconds until all leases in hand are through, as far as their paces tell.

        One that takes longer than it should is expected to exceed its time by as much again.
        """
        running_s = (time.monotonic() - self._since_s) / max(1, len(self._computing))
        remaining_s = 0.0
        for lease in self.leases:
            if lease in self._computing:
                remaining_s += abs(lease.expected_s - lease.spent_s - running_s)
            else:
                remaining_s += max(0.0, lease.expected_s - lease.spent_s)
        return remaining_s


class Intake:
    """Keeps the right number of requests open on every hop that this worker hosts."""

    def __init__(self, broker: Broker, settings: Settings, hand: Hand, accept: Accept, abreast: int = 1) -> None:
        """`abreast`: items that the device works on at a time, so that fewer in hand leave it idle."""
        self._broker = broker
        self._abreast = abreast
        self._settings = settings
        self._hand = hand
        self._accept = accept
        self._pulls: dict[Hop, Pull] = {}
        self._depth: dict[Hop, int] = {}
        self._full: set[Hop] = set()  # hops that held more when we took from them last
        self._asked: Hop | None = None  # the one of them that has not answered yet
        self._asked_s = 0.0
        self._taken = 0
        self._last_taken: dict[Hop, int] = {}
        self._pulls_beside: dict[Hop, Pull] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._paused = False
        self._closed = False

    async def host(self, spec: PipelineSpec, stages: list[str]) -> None:
        """Take from the hops in front of `stages` too, both lanes."""
        for depth, stage in enumerate(stages):
            stream = self._broker.names.work_stream(spec.name, stage)
            for lane in Lane:
                hop = Hop(spec.name, stage, lane)
                if hop not in self._pulls:
                    self._depth[hop] = depth
                    self._pulls[hop] = await self._open(hop, stream, lane.value, self._take)
        self.refill()

    async def host_beside(self, spec: PipelineSpec, stage: str, handle: Accept, limit: int) -> None:
        """Take work of `split` or `collect`: it mostly waits, so up to `limit` run beside the computing."""
        names = self._broker.names
        queues = (
            [(names.media_stream(spec.name), SPLIT, Lane.INTERACTIVE)]
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
        if self._closed or self._paused:
            return
        room = max(self._settings.credit_items, 2 * self._abreast - 2) - len(self._hand.leases)
        lead_s = self._hand.lead_s(self._settings.lead_s) - self._hand.remaining_s()
        if self._abreast > len(self._hand.leases):
            lead_s = max(lead_s, self._settings.lead_s)
        if self._hand.leases and (lead_s <= 0.0 or room <= 0 or self._hand.nbytes >= self._settings.credit_bytes):
            if lead_s < -self._settings.lead_s or lead_s > 0.0:  # what ends soon is not worth taking requests back
                self._withdraw()
            again_s = max(0.001, -lead_s)
        else:
            self._ask(room, lead_s)
            again_s = self._settings.lead_s if self._asked is None else PATIENCE_S
        if again_s < math.inf and (self._hand.leases or self._asked is not None):
            self._later = asyncio.get_running_loop().call_later(again_s, self.refill)

    def _ask(self, room: int, lead_s: float) -> None:
        """Have a request stand at every hop that seems empty, and ask one of those that held work a moment ago.

        That one will answer. Were all asked at once, all would, and a slow worker would sit on an item of each.
        """
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked_s < PATIENCE_S:
                return
            self._full.discard(self._asked)
        for hop, pull in self._pulls.items():
            if hop not in self._full and not pull.outstanding:
                pull.request(1)
        self._asked = min(self._full, key=self._turn, default=None)
        if self._asked is not None:
            pull, ahead_s = self._pulls[self._asked], max(0.0, lead_s)
            wanted = min(
                room,
                max(self._abreast - len(self._hand.leases), 1)
                + int(ahead_s / max(PATIENCE_S / room, self._hand.pace_s(self._asked))),
            )
            pull.request(wanted - pull.outstanding)
            self._asked_s = now

    def _turn(self, hop: Hop) -> tuple[bool, int, int]:
        """Persons first (but for bulk's own turn), then later stages, then whose turn was longest ago."""
        first = Lane.BULK if self._taken % BULK_TURN == 0 else Lane.INTERACTIVE
        return hop.lane != first, -self._depth[hop], self._last_taken.get(hop, 0)

    async def _take(self, hop: Hop, delivery: Delivery) -> None:
        if self._paused:
            await delivery.release()
            return
        self._taken += 1
        self._last_taken[hop] = self._taken
        if hop == self._asked:
            self._asked = None
        if delivery.pending:
            self._full.add(hop)
        else:
            self._full.discard(hop)
        await self._accept(hop, delivery)

    def outstanding(self, hop: Hop) -> int:
        """How many of the requests that stand at a hop are ours."""
        return self._pulls[hop].outstanding if hop in self._pulls else 0

    def pause(self) -> None:
        """Withdraw what was asked for: the computing thread is stuck, and what came now would wait for nothing."""
        self._paused = True
        self._withdraw()

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self.refill()

    def _withdraw(self) -> None:
        self._asked = None
        for pull in self._pulls.values():
            pull.withdraw()

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
