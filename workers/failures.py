"""What becomes of an input whose work failed: another attempt, or a failure in its place and a dead letter (law 5)."""

import traceback

from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.dead import bury
from schemas.errors import Disposition, RigflowError
from schemas.messages import Failure, JobRef, Key, PartMessage, Segment
from workers.lease import Lease
from workers.telemetry import Event, Fact, tell

DETAIL_CHARACTERS = 1500
SAID_CHARACTERS = 300  # of an attempt's error


class Failures:
    """Decides, notes and tells; the lease itself is settled by whoever holds it."""

    def __init__(self, broker: Broker, attempts: Attempts, worker: str) -> None:
        self._broker = broker
        self._attempts = attempts
        self._worker = worker
        self._most = broker.settings.max_deliver

    async def look_up(self, lease: Lease) -> None:
        """Learn of earlier attempts at an input, before work on it begins. Raises GaveUp when there were enough."""
        lease.attempts = await self._attempts.of(lease.delivery)
        if len(lease.attempts) >= self._most:
            raise GaveUp(lease)

    async def again(self, lease: Lease, error: Exception, pause_s: float) -> bool:
        """Mark an input for another attempt after growing pauses; False when it is over: rejected, or tried enough."""
        if lease.spoiled:
            return True
        disposition = error.disposition if isinstance(error, RigflowError) else Disposition.RETRY
        if disposition is Disposition.REJECT or len(lease.attempts) + 1 >= self._most:
            return False
        lease.spoil(delay_s=pause_s * (len(lease.attempts) + 1))
        await self._attempts.failed(lease.delivery, _said(error))
        return True

    async def bury(
        self,
        lease: Lease,
        error: Exception,
        stage: str,
        key: Key,
        whole: bool,
        span_s: tuple[float, float] = (0.0, 0.0),
    ) -> Failure:
        """Publish the failure of a piece as its result, and the input as a dead letter; the failure.

        `whole`: the segment will have no further part. `span_s` are the seconds of the media that are missing then.
        """
        source = lease.delivery
        attempts = lease.attempts
        if not isinstance(error, GaveUp):
            attempts = (*attempts, self._attempts.ended(source, _said(error)))
        failure = Failure(
            key=key,
            stage=stage,
            whole=whole,
            error=_said(error),
            detail="" if isinstance(error, RigflowError) else _traceback(error),
            start_s=span_s[0],
            end_s=span_s[1],
            worker=self._worker,
            deliveries=source.deliveries,
            attempts=attempts,
        )
        await bury(self._broker, failure, await source.load(), source.subject, source.stream_seq, source.headers)
        facts: dict[str, Fact] = {"job": key.job.id, "segment": key.segment, "stage": stage}
        tell(Event("failed", failure.error, facts=facts))
        return failure

    async def bury_job(self, lease: Lease, error: Exception, stage: str, job: JobRef) -> Failure:
        """`bury`, for an input that stands for its whole job."""
        return await self.bury(lease, error, stage, Key(job=job, segment=-1, final=True), whole=True)


class GaveUp(RigflowError):
    """An input was begun too often, and never finished."""

    def __init__(self, lease: Lease) -> None:
        silent = sum(not attempt.ended for attempt in lease.attempts)
        killed = ": it may have ended them; see their logs" if silent else ""
        super().__init__(f"no worker finished it in {len(lease.attempts)} attempts{killed}")


def place_of(message: object) -> tuple[Key, bool, tuple[float, float]]:
    """Where a message belongs, whether it is all of its segment, and its seconds. Raises RigflowError for others."""
    if isinstance(message, Segment | PartMessage):
        return message.key, isinstance(message, Segment), message.span_s
    raise RigflowError("a message without a place in a job")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:]
