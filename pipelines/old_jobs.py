"""Moves what is known of jobs of listed tenants out of the shared bucket, where it was before, into their own."""

from collections.abc import AsyncIterator

from pipelines.broker import DELETED, Broker, Stored
from pipelines.cancelled import CANCELLED
from pipelines.job_records import job_key


async def copy_jobs(broker: Broker) -> None:
    """Copy what the tenants' buckets lack. Call it before the fleet uses these buckets, and `move_jobs` after that."""
    async for bucket, key, stored in _shared(broker):
        if DELETED not in stored.headers:
            await broker.replace(bucket, key, stored.body, 0)


async def move_jobs(broker: Broker) -> None:
    """Copy what was written since `copy_jobs`, delete what was deleted, and delete all of it from the shared bucket.

    What workers have written into a bucket of a tenant meanwhile stays.
    """
    last = 0
    async for bucket, key, stored in _shared(broker):
        last = max(last, stored.sequence)
        known = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        if known is not None and (known.stored_s >= stored.stored_s or DELETED in known.headers):
            continue
        if DELETED not in stored.headers:
            await broker.replace(bucket, key, stored.body, 0 if known is None else known.sequence)
        elif known is not None:
            await broker.delete_key(bucket, key, known.sequence)
    shared = broker.names.jobs
    for pattern in (each for tenant in broker.tenants for each in _patterns(tenant) if last):
        await broker.purge(f"KV_{shared}", f"$KV.{shared}.{pattern}", last)


async def _shared(broker: Broker) -> AsyncIterator[tuple[str, str, Stored]]:
    """Last entries of listed tenants in the shared bucket, deletions too: its bucket, its key, itself."""
    shared = broker.names.jobs
    prefix = f"$KV.{shared}."
    for tenant in sorted(broker.tenants):
        for pattern in _patterns(tenant):
            async for stored in broker.read(f"KV_{shared}", prefix + pattern):
                yield broker.names.jobs_of(tenant), stored.subject.removeprefix(prefix), stored


def _patterns(tenant: str) -> tuple[str, ...]:
    return (job_key(tenant, "*"), f"{CANCELLED}.{job_key(tenant, '*')}", f"upload.{job_key(tenant, '*')}")
