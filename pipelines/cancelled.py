"""Which generations of jobs are cancelled: workers drop their messages."""

from collections.abc import AsyncIterator

from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.job_records import job_key
from pipelines.values import decoded
from schemas.jobs import JobRef

CANCELLED = "cancelled"  # first token of the keys of cancelled jobs, which workers follow


def cancelled_key(job: JobRef) -> str:
    """The key of the last cancelled generation of a job, in the bucket of jobs."""
    return f"{CANCELLED}.{job_key(job.tenant, job.id)}"


async def drop_queued(broker: Broker, job: JobRef) -> None:
    """Have all workers drop the messages of a job up to this generation, those they hold and those they receive."""
    await broker.put(broker.names.jobs, cancelled_key(job), job.model_dump_json().encode())


class Cancelled:
    """The cancelled generations of jobs. Run `follow` in a task; `has` then answers for a job."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._generations: dict[tuple[str, str], int] = {}

    async def follow(self) -> AsyncIterator[None]:
        """Read all cancellations, then new ones as they come; yields after each."""
        async for key, value in follow_bucket(self._broker, self._broker.names.jobs, f"{CANCELLED}.*.*"):
            job = decoded(JobRef, value, key)
            if job is not None:
                self._generations[job.tenant, job.id] = job.generation
                yield

    def has(self, job: JobRef) -> bool:
        """Whether this generation of a job is cancelled."""
        return bool(self._generations) and job.generation <= self._generations.get((job.tenant, job.id), -1)
