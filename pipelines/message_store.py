"""Stores messages in streams with back-pressure, and reserves space for uploads in the object stores."""

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.connection import Connection, Forbidden
from pipelines.inbox import Away, NoResponders
from pipelines.jetstream import ATTEMPTS, STREAM_FULL, ApiError, Gone, JetStream, parse, pause
from pipelines.nats_sending import Body
from schemas.errors import BrokerError, Disposition, StoreError
from schemas.subjects import Names
from schemas.tenants import Tenant, TenantList
from schemas.text import size

HEADERS_BYTES = 4096  # reserved for headers, which count towards the server's max_payload
WORTH_ASKING_BYTES = 1 << 16  # a body of so many costs more to send in vain than to ask whether there is room
IN_FLIGHT_BYTES = 8 << 20  # more in flight gives no more throughput, and every queue on the way copies it


class NeverFits(StoreError):
    """An object is larger than its whole store."""

    disposition = Disposition.REJECT


class FleetFull(StoreError):
    """What a job needs is full, and stayed so for as long as its caller waits."""


def fleet_full(what: str) -> FleetFull:
    """The error for a store or queue of the fleet that is full."""
    return FleetFull(f"the fleet is full: {what} takes no more now", "send it again in a while")


@dataclass(frozen=True, slots=True)
class Acked:
    """Where a message is stored, and whether it was not there before."""

    sequence: int
    new: bool


class Reservation:
    """Space of a store that an upload may still fill: `left` bytes. What it stores counts there, and no longer here.

    `share` is what uploads of its kind may fill of the store, `stored_bytes` what it stored before.
    """

    def __init__(self, uploads: "Uploads", stream: str, share: float, stored_bytes: int = 0) -> None:
        self._uploads, self._stream, self._share = uploads, stream, share
        self._before, self.left = stored_bytes, 0

    def stored(self, nbytes: int) -> None:
        """So many of its bytes are in the store."""
        nbytes = min(nbytes, self.left)
        self._before += nbytes
        self._change(-nbytes)

    async def extend(self, nbytes: int, patience_s: float) -> None:
        """Reserve more, before those that have stored nothing yet. Raises as `Uploads.reserve`."""
        until_s = time.monotonic() + patience_s
        await self._uploads.wait_for(self._stream, nbytes, self._before + self.left, until_s, self._share)
        self._change(nbytes)

    def end(self) -> None:
        """Give back what is left."""
        self._change(-self.left)

    def _change(self, nbytes: int) -> None:
        self.left += nbytes
        self._uploads.reserved[self._stream] += nbytes


class Uploads:
    """Reserves space in the broker's object stores for the uploads of one process, in order of their requests."""

    def __init__(self, broker: "MessageStore") -> None:
        self._broker = broker
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.reserved: Counter[str] = Counter()  # of each stream, and not stored yet

    @contextlib.asynccontextmanager
    async def reserve(
        self, stream: str, nbytes: int, patience_s: float = math.inf, share: float = 1.0
    ) -> AsyncIterator[Reservation]:
        """Wait until a stream has space for `nbytes`, and reserve it for the block.

        It may fill `share` of the stream, or all of one that is empty. Raises FleetFull when there is no space for
        `patience_s`, however long the broker takes to say so; NeverFits, BrokerError.
        """
        full, until_s = _full(stream), time.monotonic() + patience_s
        try:
            with self._broker.waiting_for_fleet() as wait:
                if self._turns[stream].locked():
                    wait()
                async with asyncio.timeout(None if patience_s == math.inf else patience_s):
                    await self._turns[stream].acquire()
        except TimeoutError:
            raise full from None
        reservation = Reservation(self, stream, share)
        try:
            await reservation.extend(nbytes, until_s - time.monotonic())
        finally:
            self._turns[stream].release()
        try:
            yield reservation
        finally:
            reservation.end()

    async def wait_for(self, stream: str, nbytes: int, own: int, until_s: float, share: float) -> None:
        """Wait until a stream has space for an upload that has `own` bytes of it; the caller reserves it at once.

        Raises as `reserve`.
        """
        attempt = 0
        with self._broker.waiting_for_fleet() as wait:
            while not await self._fits(stream, nbytes, own, share):
                if time.monotonic() >= until_s:
                    raise _full(stream)
                attempt += 1
                wait()
                await pause(attempt)

    async def _fits(self, stream: str, nbytes: int, own: int, share: float) -> bool:
        before = self.reserved[stream]  # what is stored while the store is asked counts twice, not never
        info = await self._broker.api_unless_gone(f"STREAM.INFO.{stream}")
        if info is None:
            raise BrokerError(f"the broker has no store {stream}", "register the pipeline first")
        limit = int(info["config"]["max_bytes"])
        used = int(info["state"]["bytes"]) + max(before, self.reserved[stream])
        most = limit * share if own else limit
        if 0 < most < own + nbytes:
            what = f"{size(own + nbytes)} never fit into {stream}, which takes {size(most)}"
            raise NeverFits(what, "raise results_bytes, and run `rigflow topology apply`")
        return limit <= 0 or not used or used + nbytes <= limit * share


def _full(stream: str) -> FleetFull:
    return fleet_full(f"the broker's store {stream.removeprefix('OBJ_')}")


class MessageStore(JetStream):
    """A connected broker that stores messages; `pipelines.blobs` needs no more of it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.settings = connection.settings
        self.names = Names(connection.settings.prefix)
        self.listed = TenantList()
        self.uploads = Uploads(self)
        self.media_bytes = 0  # of media that come in and are in memory, of all clients
        self._flight = _Flight(IN_FLIGHT_BYTES)
        self._refused: list[asyncio.Task[object] | None] = []  # tasks whose message a full stream has refused

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants that the operator has listed, by their names."""
        return self.listed.tenants

    def take_tenants(self, listed: TenantList) -> None:
        """Take the tenants that the operator has listed."""
        self.listed = listed
        self.names = Names(self.settings.prefix, frozenset(listed.tenants), listed.own_jobs)

    async def read_clock(self) -> None:
        """Have `now_s` as it is now. A broker without streams does not say it before it makes the first."""
        with contextlib.suppress(Forbidden):  # by permissions of an earlier version
            await self.api_unless_gone(f"STREAM.INFO.KV_{self.names.jobs}")

    @property
    def max_body(self) -> int:
        """Most bytes of a body in one message; larger ones travel as claim checks."""
        return self.connection.max_payload - min(HEADERS_BYTES, self.connection.max_payload // 2)

    @property
    def waiting(self) -> str:
        """What publishing waits for now: "the broker" (it is away), "the fleet" (a queue is full), or "" (nothing)."""
        if not self.connection.connected:
            return "the broker"
        return "the fleet" if self._refused else ""

    @contextmanager
    def waiting_for_fleet(self) -> Iterator[Callable[[], None]]:
        """Within the block, after a call of the function it yields, `waiting` is "the fleet"."""
        refused, task = False, asyncio.current_task()

        def wait() -> None:
            nonlocal refused
            if not refused:
                self._refused.append(task)
            refused = True

        try:
            yield wait
        finally:
            if refused:
                self._refused.remove(task)

    def is_refused(self, publishing: asyncio.Task[bool]) -> bool:
        """Whether a task waits for room."""
        return publishing in self._refused

    async def store(
        self, subject: str, body: Body, headers: Mapping[str, str], until_full: bool = False
    ) -> tuple["Acked", int]:
        """Publish one message until it is stored: the broker's acknowledgement, and the number of attempts.

        Its `Nats-Msg-Id` makes it safe to send it again when the answer is lost. With `until_full` a full stream raises
        ApiError; without it this waits, and sends a large body again only once the stream has room for it.
        """
        attempts = missing = 0
        with self.waiting_for_fleet() as wait:
            while True:
                attempts += 1
                try:
                    await self._flight.take(len(body))
                    try:
                        acked = parse(await self.connection.request(subject, body, headers))
                    finally:
                        self._flight.give(len(body))  # not held while we wait: one full queue must not block the others
                    return Acked(acked["seq"], not acked.get("duplicate", False)), attempts
                except Away:
                    await self.connection.wait_connected()
                except NoResponders:
                    missing += 1
                    if missing >= ATTEMPTS and not await self._takes(subject):
                        hint = "publish its pipeline first; if that is done, see the broker's log"
                        raise Gone(f"no stream takes {subject}", hint) from None
                except ApiError as error:
                    if not error.passing or (until_full and error.full):
                        raise
                    wait()
                    if error.code == STREAM_FULL and len(body) >= WORTH_ASKING_BYTES:
                        await self._room_for(subject, len(body))
                await pause(attempts)

    async def _room_for(self, subject: str, nbytes: int) -> None:
        """Wait until the stream that takes `subject` has room; of several or none nothing is known, and it returns."""
        for attempt in itertools.count(1):
            streams: list[str] = (await self.api("STREAM.NAMES", {"subject": subject})).get("streams") or []
            info = await self.api_unless_gone(f"STREAM.INFO.{streams[0]}") if len(streams) == 1 else None
            if info is None:
                return
            config, state = info["config"], info["state"]
            full = state["messages"] and 0 < config["max_bytes"] < state["bytes"] + nbytes + HEADERS_BYTES
            if not full and not 0 < config["max_msgs"] <= state["messages"]:
                return
            await pause(attempt)

    async def _takes(self, subject: str) -> bool:
        """Whether a stream takes a subject. A stream without a leader does not answer."""
        return bool((await self.api("STREAM.NAMES", {"subject": subject}))["total"])


class _Flight:
    """Limits the bytes of publishes in flight, in order of requests. A message over the limit goes alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, nbytes: int) -> None:
        """Wait until a publish of so many bytes may begin; `give` ends it."""
        if self._fits(nbytes) and not self._turn.locked():
            self._used_bytes += nbytes
            return
        async with self._turn:
            while not self._fits(nbytes):
                self._freed.clear()
                await self._freed.wait()
            self._used_bytes += nbytes

    def give(self, nbytes: int) -> None:
        """A publish is over."""
        self._used_bytes -= nbytes
        self._freed.set()

    def _fits(self, nbytes: int) -> bool:
        return not self._used_bytes or self._used_bytes + nbytes <= self._limit_bytes
