"""Messages of `split` and `collect`: their work mostly waits, and when it fails, a whole job fails."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipelines.broker import Broker
from pipelines.dead import bury
from schemas.errors import Disposition, RigflowError
from schemas.messages import Failure, JobRef, Key
from schemas.settings import Settings
from workers.lease import Lease

RETRY_S = 1.0


@asynccontextmanager
async def kept_alive(lease: Lease, settings: Settings) -> AsyncIterator[None]:
    """Renew `lease` every third of ack_wait; hand it back when the task is cancelled.

    There is no deadline: a full hop may hold a split back, and a queue a collect, for as long as it takes.
    """

    async def renew() -> None:
        while not lease.settled:
            await lease.delivery.progress()
            await asyncio.sleep(settings.ack_wait_s / 3)

    renewing = asyncio.create_task(renew())
    try:
        yield
    except asyncio.CancelledError:
        await asyncio.shield(lease.release())
        raise
    finally:
        renewing.cancel()


async def fail(broker: Broker, lease: Lease, error: Exception, stage: str, job: JobRef | None) -> Failure | None:
    """Mark a message for another attempt; None then. On its last one, or when it can never work, bury its job.

    Gives the failure it buried. A message whose job cannot be told is terminated.
    """
    delivery = lease.delivery
    disposition = error.disposition if isinstance(error, RigflowError) else Disposition.RETRY
    if disposition is not Disposition.REJECT and delivery.deliveries < broker.settings.max_deliver:
        lease.spoil(RETRY_S * delivery.deliveries)
        return None
    if job is None:
        await lease.terminate(str(error))
        return None
    failure = Failure(
        key=Key(job=job, segment=-1, final=True),
        stage=stage,
        whole=True,
        error=str(error) or type(error).__name__,
        detail="" if isinstance(error, RigflowError) else "".join(traceback.format_exception(error))[-1500:],
        deliveries=delivery.deliveries,
    )
    await bury(broker, failure, await delivery.load(), delivery.subject, delivery.stream_seq, delivery.headers)
    return failure
