"""Messages of `split` and `collect`: their work mostly waits, and when it fails, a whole job fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.messages import Failure, JobRef
from schemas.settings import Settings
from workers.failures import Failures
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


async def fail(failures: Failures, lease: Lease, error: Exception, stage: str, job: JobRef | None) -> Failure | None:
    """Mark a message for another attempt; None then. On its last one, or when it can never work, bury its job.

    Gives the failure it buried. A message whose job cannot be told is terminated.
    """
    if await failures.again(lease, error, RETRY_S):
        return None
    if job is None:
        await lease.terminate(str(error))
        return None
    return await failures.bury_job(lease, error, stage, job)
