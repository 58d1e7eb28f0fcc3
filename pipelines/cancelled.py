"""Which generations of jobs are cancelled: workers drop their messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from pipelines.broker import Broker
from pipelines.connection import Forbidden
from pipelines.follow import follow_bucket
from pipelines.job_records import job_key
from pipelines.values import decoded, report_skipped
from schemas.jobs import JobRef

CANCELLED = "cancelled"  # first token of the keys of cancelled jobs, which workers follow
LOOK_S = 2.0  # between two looks at which tenants there are
REMEMBERED = 50_000  # of each tenant; what waits behind so many more is computed, and its results are removed later


def cancelled_key(job: JobRef) -> str:
    """The key of the last cancelled generation of a job, in the bucket of jobs."""
    return f"{CANCELLED}.{job_key(job.tenant, job.id)}"


async def drop_queued(broker: Broker, job: JobRef) -> None:
    """Have all workers drop the messages of a job up to this generation, those they hold and those they receive."""
    await broker.put(broker.names.jobs_of(job.tenant), cancelled_key(job), job.model_dump_json().encode())


class Cancelled:
    """The cancelled generations of jobs. Run `follow` in a task; `has` then answers for a job."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._generations: dict[str, dict[str, int]] = {}  # bucket -> key -> generation, the oldest first

    async def follow(self) -> AsyncIterator[None]:
        """Read all cancellations of all tenants, then new ones as they come; yields after each."""
        arrived: asyncio.Queue[None] = asyncio.Queue()
        following: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                wanted = set(self._broker.names.all_jobs)
                for bucket in wanted - following.keys():
                    following[bucket] = asyncio.create_task(self._follow(bucket, arrived))
                for bucket in following.keys() - wanted:  # a tenant that is added again later counts from 0 again
                    await _ended(following.pop(bucket))
                    self._generations.pop(bucket, None)
                for task in following.values():
                    if task.done():
                        task.result()  # raises
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await arrived.get()
                    yield
        finally:
            await _ended(*following.values())

    async def _follow(self, bucket: str, arrived: "asyncio.Queue[None]") -> None:
        self._generations[bucket] = {}
        while True:
            try:
                await self._take(bucket, arrived)
            except Forbidden:  # the broker may read its permissions after we read the list of tenants
                report_skipped(f"the bucket {bucket}", "the broker's permissions forbid it: have it read them again")
                await asyncio.sleep(LOOK_S)

    async def _take(self, bucket: str, arrived: "asyncio.Queue[None]") -> None:
        generations = self._generations[bucket]
        async for key, value in follow_bucket(self._broker, bucket, f"{CANCELLED}.*.*"):
            job = decoded(JobRef, value, key)
            if job is not None:
                generations.pop(key, None)
                generations[key] = job.generation
                if len(generations) > REMEMBERED:
                    del generations[next(iter(generations))]
                arrived.put_nowait(None)

    def has(self, job: JobRef) -> bool:
        """Whether this generation of a job is cancelled."""
        generations = self._generations.get(self._broker.names.jobs_of(job.tenant), {})
        return job.generation <= generations.get(cancelled_key(job), -1)


async def _ended(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
