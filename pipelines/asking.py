"""Small media whose results a caller waits for: sent to the first stage and answered from the results as they come.

Such a request is no job in the list, and no worker collects it: it has no record, and its results are deleted when they
are read. A caller that goes away cancels it; what was computed by then counts as used. If this process ends meanwhile,
workers finish what they have, and its results are deleted when they are too old.
"""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from engines.media.segment_data import SegmentData
from engines.part import Array, unpack_arrays
from pipelines.blobs import discard_claims, load
from pipelines.broker import ApiError, Broker
from pipelines.cancelled import drop_queued
from pipelines.claims import claim_of
from pipelines.inventory import take_inventory
from pipelines.jetstream import Stored
from pipelines.message_store import fleet_full
from pipelines.usage import record_usage
from schemas.errors import MessageError, RigflowError
from schemas.jobs import JobRef, JobState, Key, Manifest, Priority
from schemas.messages import decode
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.results import Failure, Result
from schemas.subjects import HEADER_ID, HEADER_TYPE

LOOK_S = 2.0  # without a message, until the stream is asked: one is lost where the connection was
FULL_S = 5.0  # how long a large body waits for space


class RequestFailed(RigflowError):
    """A stage refused a request, or failed on it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of one part: what it is of, its arrays, and the facts of its format."""

    meta: PartMeta
    arrays: dict[str, Array]
    facts: dict[str, Any]


class Asker:
    """Sends requests of one tenant over one connection; `close` waits for what is left to delete."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tidying: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until the results of answered requests are deleted."""
        await asyncio.gather(*self._tidying, return_exceptions=True)

    async def ask(
        self, spec: PipelineSpec, segments: Sequence[SegmentData], tenant: str, submitter: str | None = None
    ) -> list[Answered]:
        """Send the segments of a media, and return the results of their parts in order.

        When this is cancelled, workers drop what they have of it. Raises FleetFull at once when the first queue is
        full, QuotaReached, RequestFailed, MessageError, BrokerError.
        """
        await self._broker.quotas.check(tenant)
        job = JobRef(
            id=uuid.uuid4().hex,
            tenant=tenant,
            pipeline=spec.name,
            revision=spec.revision,
            priority=Priority.INTERACTIVE,
        )
        waiting = _Waiting(self._broker, job, len(segments))
        nbytes, began_s, state = sum(each.nbytes for each in segments), self._broker.now_s(), JobState.CANCELLED
        await waiting.open()
        try:
            await self._send(spec, job, segments)
            found = await waiting.results()
            state = JobState.DONE
        except RequestFailed:
            state = JobState.FAILED
            raise
        finally:
            await waiting.close()
            known = Manifest(job=job, name=job.id, nbytes=nbytes, submitter=submitter, created_s=began_s, state=state)
            self._later(self._tidy(known, waiting.found, waiting.claims))
        return found

    async def _send(self, spec: PipelineSpec, job: JobRef, segments: Sequence[SegmentData]) -> None:
        broker, first = self._broker, spec.decode.name
        subject = broker.names.work(spec.name, first, job.priority, job.tenant)
        for number, each in enumerate(segments):
            key = Key(job=job, segment=number, final=each.final)
            body = each.segment(key).pieces(each.content)
            try:
                if len(body) <= broker.max_body:
                    await broker.store(subject, body, {HEADER_ID: key.message_id(first)}, until_full=True)
                else:
                    async with asyncio.timeout(FULL_S):
                        await broker.publish(subject, body, key.message_id(first))
            except ApiError as error:
                if not error.full:
                    raise
                raise fleet_full(f"the queue of pipeline {spec.name}") from error
            except TimeoutError as error:
                raise fleet_full("the store of large messages") from error

    def _later(self, step: Any) -> None:
        task = asyncio.create_task(step)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy(self, known: Manifest, answered: Sequence[Answered], claims: Sequence[str]) -> None:
        """Note what a request used and delete its results; of one that has no answer, also what is queued."""
        names = self._broker.names
        with suppress(RigflowError):  # the broker is away: results grow too old, and are deleted then
            if known.state is JobState.DONE:
                used = {
                    "segments": len(answered),
                    "frames": sum(each.meta.frames for each in answered),
                    "computed_s": sum(each.meta.computed_s for each in answered),
                    "tokens": sum(each.meta.tokens for each in answered),
                }
            else:  # what was computed by now counts
                await drop_queued(self._broker, known.job)
                inventory = await take_inventory(self._broker, known)
                used = {"frames": inventory.frames, "computed_s": inventory.computed_s}
            if known.state is JobState.DONE or used["computed_s"]:
                await record_usage(self._broker, known.model_copy(update={**used, "ended_s": self._broker.now_s()}))
            await self._broker.purge(names.results_of(known.job.tenant), names.results(known.job))
            await discard_claims(self._broker, names.blobs_of(known.job.tenant), claims)


class _Waiting:
    """Takes the results of a request from its subject, where they pass on their way into the stream."""

    def __init__(self, broker: Broker, job: JobRef, segments: int) -> None:
        self._broker = broker
        self._job = job
        self._segments = segments
        self._messages: asyncio.Queue[Stored] = asyncio.Queue()
        self._parts: dict[tuple[int, int], Answered] = {}
        self._lasts: dict[int, int] = {}  # segment -> the number of its last part
        self._subscription: Any = None
        self.claims: list[str] = []

    @property
    def found(self) -> list[Answered]:
        """The results that came, in order."""
        return [self._parts[place] for place in sorted(self._parts)]

    async def open(self) -> None:
        async def take(message: Msg) -> None:
            self._messages.put_nowait(Stored(message.subject, 0, dict(message.headers or {}), message.data))

        # the server handles it before what is published afterwards on the same connection
        subject = self._broker.names.results(self._job)
        self._subscription = await self._broker.connection.nc.subscribe(subject, cb=take, pending_bytes_limit=0)

    async def close(self) -> None:
        with suppress(Exception):  # the connection is away: the subscription ended with it
            await self._subscription.unsubscribe()

    async def results(self) -> list[Answered]:
        while not self._complete:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._take(await self._messages.get())
            except TimeoutError:
                results = self._broker.names.results(self._job)
                async for stored in self._broker.read(self._broker.names.results_for(results), results):
                    await self._take(stored)
        return self.found

    @property
    def _complete(self) -> bool:
        return len(self._lasts) == self._segments and len(self._parts) == sum(last + 1 for last in self._lasts.values())

    async def _take(self, stored: Stored) -> None:
        if stored.headers.get(HEADER_TYPE) not in ("part", "failure"):
            return
        if claim := claim_of(stored.subject, stored.headers):
            self.claims.append(claim)
        message, buffers = decode(await load(self._broker, stored))
        if isinstance(message, Failure):
            raise RequestFailed(message.error)
        if not isinstance(message, Result):
            raise MessageError("a result is of another type")
        key = message.meta.key
        arrays = unpack_arrays(message.arrays, buffers)
        self._parts[key.segment, key.part] = Answered(message.meta, arrays, dict(message.facts))
        if key.last:
            self._lasts[key.segment] = key.part
