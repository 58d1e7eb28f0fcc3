"""Gives a message whose work failed another attempt, or publishes its failure and a dead letter (law 5)."""

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.dead import dead_letter, dead_letter_unread
from pipelines.quotas import StorageFull
from schemas.errors import Disposition, RigflowError, format_error
from schemas.jobs import JobRef, Key
from schemas.messages import decode
from schemas.parts import PartMessage, PartMeta
from schemas.results import Attempt, Failure
from schemas.segments import Segment
from schemas.wire import Buffer
from workers.in_flight import InFlight
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Event, Fact, log_event

RETRY_S = 0.5  # pause before the second attempt, twice that before the third ...
DETAIL_CHARACTERS = 1500
UNPUBLISHED_S = 5.0  # pause before a message whose failure could not be published is delivered again
LONGEST_FULL_S = 30.0  # pause while the storage of a tenant stays full: until there is room, all work is done in vain


class Place(NamedTuple):
    """The part of a job that is missing when a message fails.

    `entire_segment`: the segment will have no further part. `span_s` are the seconds of the media, `cards` the marks of
    those that worked on it.
    """

    key: Key
    entire_segment: bool
    span_s: tuple[float, float] = (0.0, 0.0)
    cards: tuple[str, ...] = ()


PlaceOf = Callable[[InFlight], Awaitable[Place]]
OnFailure = Callable[[Failure], Awaitable[None]]


async def _nothing(_: Failure) -> None: ...


class Failures:
    """Counts attempts, publishes failures and dead letters; the transitions are those of `InFlight`."""

    def __init__(self, broker: Broker, attempts: Attempts, worker: str) -> None:
        self._broker = broker
        self._attempts = attempts
        self._worker = worker
        self._most = broker.settings.max_deliver

    async def look_up(self, message: InFlight) -> None:
        """Load the earlier attempts at a message before work on it begins. Raises GaveUp after `max_deliver`."""
        message.attempts = await self._attempts.of(message.delivery)
        if len(message.attempts) >= self._most:
            raise GaveUp(message)

    def begin(self, message: InFlight) -> None:
        """Begin this worker's attempt."""
        message.begin(self._attempts.new(message.delivery))

    async def store_begun(self, in_flight: MessagesInFlight, surely: bool) -> None:
        """Store which messages have begun: if this process crashes, one of them may be the cause.

        A poison candidate is computed alone, and then only that message is stored.
        """
        begun = [message for message in (*in_flight.messages, *in_flight.io_messages) if message.begun]
        stored = [message for message in in_flight.poison_candidates if message.begun] or begun
        pairs = [(message.delivery, message.attempt) for message in stored if message.attempt is not None]
        await self._attempts.store_begun(pairs, surely)

    async def retry(self, message: InFlight, error: Exception, pause_s: float) -> bool:
        """Mark a message for another attempt after a growing pause; False for a rejected one or the last attempt."""
        if message.is_copy:
            await message.drop_copy()
        if message.useless:
            return True
        disposition = error.disposition if isinstance(error, RigflowError) else Disposition.RETRY
        if disposition is Disposition.ELSEWHERE:
            await message.mark_for_retry(_pause_s(message, error, pause_s))
            return True
        # it may have failed before `look_up`, for example because its object is gone
        message.attempts = message.attempts or await self._attempts.of(message.delivery)
        if disposition is Disposition.REJECT or len(message.attempts) + 1 >= self._most:
            return False
        await self._attempts.store_failed(message.delivery, self._ended(message, error))
        await message.mark_for_retry(pause_s * (len(message.attempts) + 1))
        return True

    async def publish(
        self,
        message: InFlight,
        error: Exception,
        stage: str,
        place: Place,
        mark: str = "",
    ) -> Failure:
        """Publish a failure in place of a result, and the message as a dead letter. Returns the failure.

        `mark` is that of the card on which it failed, if what failed is done again once the card is in doubt.
        """
        if mark and mark not in place.cards:
            place = place._replace(cards=(*place.cards, mark))
        failure = self._failure(message, error, stage, place)
        source = message.delivery
        body = await _body_of(message)
        await dead_letter(self._broker, failure, body, source.subject, source.stream_seq, source.headers)
        facts: dict[str, Fact] = {"job": place.key.job.id, "segment": place.key.segment, "stage": stage}
        log_event(Event("failed", failure.error, facts=facts))
        return failure

    async def settle(
        self, message: InFlight, error: Exception, place: PlaceOf, on_failure: OnFailure = _nothing
    ) -> bool:
        """Retry a message whose handler failed, or end it with its failure; `on_failure` is called with that.

        For a message whose job is unknown or belongs to another pipeline, only a dead letter is published. Returns
        whether it failed for good.
        """
        try:
            if await self.retry(message, error, 2 * RETRY_S):
                return False
            if message.job is None or message.job.pipeline != message.queue.pipeline:
                await self.reject(message, error)
                return True
            await on_failure(await self.publish(message, error, message.queue.stage, await place(message)))
            await message.ack()
        except Exception as second:
            await self.give_back(message, second)
        return True

    async def reject(self, message: InFlight, error: Exception) -> None:
        """End a message whose job cannot be read, with a dead letter that has the reason."""
        queue = message.queue
        job = JobRef(id=f"unreadable-{message.delivery.stream_seq}", pipeline=queue.pipeline, revision="unknown")
        failure = self._failure(message, error, queue.stage, _entire(job))
        source = message.delivery
        body = await _body_of(message)
        await dead_letter_unread(self._broker, failure, body, source.subject, source.stream_seq, source.headers)
        log_event(Event("rejected", failure.error, facts={"pipeline": queue.pipeline, "stage": queue.stage}))
        await message.dead_letter(failure.error)

    async def give_back(self, message: InFlight, error: Exception) -> None:
        """A failure could not be published: have the message delivered again later, so that it is not lost."""
        what = f"a failure of {message.delivery.subject} could not be published: {format_error(error)}"
        log_event(Event("unpublished", what, logging.ERROR, {"detail": _traceback(error)}))
        await message.mark_for_retry(_pause_s(message, error, UNPUBLISHED_S))

    def _failure(self, message: InFlight, error: Exception, stage: str, place: Place) -> Failure:
        attempts = message.attempts if isinstance(error, GaveUp) else (*message.attempts, self._ended(message, error))
        return Failure(
            key=place.key,
            stage=stage,
            entire_segment=place.entire_segment,
            error=format_error(error),
            detail="" if isinstance(error, RigflowError) else _traceback(error),
            start_s=place.span_s[0],
            end_s=place.span_s[1],
            worker=self._worker,
            deliveries=message.delivery.deliveries,
            attempts=attempts,
            cards=place.cards,
        )

    def _ended(self, message: InFlight, error: Exception) -> Attempt:
        """This worker's attempt, which ended with an error."""
        attempt = message.attempt or self._attempts.new(message.delivery)
        return attempt.model_copy(update={"ended": format_error(error)})


class GaveUp(RigflowError):
    """A message was begun `max_deliver` times and never finished."""

    def __init__(self, message: InFlight) -> None:
        silent = sum(not attempt.ended for attempt in message.attempts)
        killed = ": it may have crashed them; see their logs" if silent else ""
        super().__init__(f"no worker finished it in {len(message.attempts)} attempts{killed}")


def place_of(part: PartMeta) -> Place:
    """The place of a part."""
    return Place(part.key, False, part.span_s, part.cards)


async def place_in_body(message: InFlight) -> Place:
    """The place of a message that is a segment or a part. Raises RigflowError for other messages."""
    content, _ = decode(await message.delivery.load())
    if isinstance(content, Segment | PartMessage):
        return place_of(content.meta) if isinstance(content, PartMessage) else Place(content.key, True, content.span_s)
    raise RigflowError("a message without a place in a job")


async def place_of_job(message: InFlight) -> Place:
    """The place for a failure of the entire job of a message."""
    assert message.job is not None
    return _entire(message.job)


def _entire(job: JobRef) -> Place:
    """The place for a failure of an entire job."""
    return Place(Key(job=job, segment=-1, final=True), entire_segment=True)


async def _body_of(message: InFlight) -> Buffer:
    """The body for a dead letter; empty when its object cannot be fetched, which the failure then says."""
    try:
        return await message.delivery.load()
    except RigflowError:
        return b""


def _pause_s(message: InFlight, error: Exception, pause_s: float) -> float:
    """`pause_s`, but twice as long each time while a tenant's storage is full."""
    if not isinstance(error, StorageFull):
        return pause_s
    return min(LONGEST_FULL_S, pause_s * 2.0 ** min(message.delivery.deliveries, 10))


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:]
