"""Work that nobody finished in all its attempts, for it kills its worker: the broker's word on it ends it for good.

A worker buries what fails in its hands. What takes the worker along can only be buried by another one.
"""

import contextlib
import json

from pipelines.blobs import load
from pipelines.broker import Broker, Stored
from pipelines.dead import bury
from pipelines.inventory import describe
from pipelines.jobs import JobCancelled, end, publish_done
from pipelines.pull import Delivery, Pull
from pipelines.room import delete_blobs
from pipelines.topology import ADVISORY_CONSUMER
from schemas.errors import RigflowError
from schemas.messages import CollectRequest, Done, Failure, Key, PartMessage, Segment, decode
from schemas.subjects import COLLECT, HEADER_BLOB


class Undeliverable:
    """Takes the server's MAX_DELIVERIES advisories, one at a time: `open`, then `close`."""

    def __init__(self, broker: Broker, worker: str) -> None:
        self._broker = broker
        self._worker = worker
        self._pull = Pull(broker, broker.names.advisory_stream, ADVISORY_CONSUMER, self._take)

    async def open(self) -> None:
        """Begin; the streams of at least one pipeline must be there."""
        await self._pull.open()
        self._pull.request(1)

    async def close(self) -> None:
        """Take nothing more."""
        await self._pull.close()

    async def _take(self, delivery: Delivery) -> None:
        try:
            advisory = json.loads(await delivery.load())
            stored = await self._broker.message(advisory["stream"], advisory["stream_seq"])
            if stored is not None:  # None: it was done after all, or buried by whom this advisory came to first
                await self._end(stored, int(advisory["deliveries"]))
                await self._broker.delete_message(advisory["stream"], stored.sequence)
                await delete_blobs(self._broker, filter(None, [stored.headers.get(HEADER_BLOB)]))
            await delivery.ack()
        except RigflowError:
            await delivery.retry(1.0)
        finally:
            self._pull.request(1)

    async def _end(self, stored: Stored, deliveries: int) -> None:
        """Publish the failure of what a message asked for, and its dead letter; none for what is no message of ours."""
        body = await load(self._broker, stored)
        try:
            message, _ = decode(body)
        except ValueError:
            return
        if isinstance(message, Segment):
            key, whole = message.key, True
        elif isinstance(message, PartMessage):
            key, whole = message.meta.key, False
        elif isinstance(message, CollectRequest):
            key, whole = Key(job=message.job, segment=-1, final=True), True
        else:
            return
        stage = stored.subject.split(".")[-2]
        error = f"no worker finished it in {deliveries} attempts: it may have ended them; see their logs"
        failure = Failure(key=key, stage=stage, whole=whole, error=error, worker=self._worker, deliveries=deliveries)
        await bury(self._broker, failure, body, stored.subject, stored.sequence, stored.headers)
        if stage == COLLECT:
            done = Done(job=key.job, segments=0, frames=0, lost=0, failures=(describe(failure),))
            await publish_done(self._broker, done, f"{stored.subject}/{stored.sequence}")
            with contextlib.suppress(JobCancelled):  # whoever did that has told
                await end(self._broker, None, done)
