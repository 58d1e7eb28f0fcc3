"""The jobs that the broker knows, kept between readings: of 10,000 jobs only those that changed are read again."""

import asyncio
from collections.abc import Sequence

from pipelines.broker import DELETED, Broker, Stored
from pipelines.job_records import job_key
from pipelines.values import decoded
from schemas.jobs import Manifest


class JobIndex:
    """The jobs of all tenants that were asked for, as they are at each `jobs`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._buckets: dict[str, _Bucket] = {}

    async def jobs(self, tenant: str) -> Sequence[Manifest]:
        """The jobs of a tenant now, in no order. Raises BrokerError."""
        return [manifest for _, manifest in await self._of(tenant)]

    async def version(self, tenant: str) -> tuple[int, int]:
        """Another value whenever a job of the tenant was made, changed or deleted. Raises BrokerError."""
        places = [place for place, _ in await self._of(tenant)]
        return max(places, default=0), len(places)

    async def _of(self, tenant: str) -> list[tuple[int, Manifest]]:
        names = self._broker.names
        for gone in self._buckets.keys() - set(names.all_jobs):
            del self._buckets[gone]
        bucket = names.jobs_of(tenant)
        return await self._buckets.setdefault(bucket, _Bucket(self._broker, bucket)).of(tenant)


class _Bucket:
    """All jobs of one bucket. It is as large as that, which is bounded.

    The broker drops entries that are too old, or too many, from the front of the stream, and a change of a job is its
    last entry. So what the stream has before its first entry and after the last one that was read here is all that
    changed.
    """

    def __init__(self, broker: Broker, bucket: str) -> None:
        self._broker, self._bucket = broker, bucket
        self._known: dict[str, tuple[int, Manifest]] = {}  # key -> its place in the stream, and the job
        self._read = 0  # the last place that was read
        self._stream = ""  # when the stream was made: one that is made anew counts from 1 again
        self._lock = asyncio.Lock()

    async def of(self, tenant: str) -> list[tuple[int, Manifest]]:
        """The jobs of a tenant, each with its place in the stream."""
        async with self._lock:
            await self._refresh()
            of_tenant = job_key(tenant, "")
            return [known for key, known in self._known.items() if key.startswith(of_tenant)]

    async def _refresh(self) -> None:
        stream, prefix = f"KV_{self._bucket}", f"$KV.{self._bucket}."
        info = await self._broker.api_unless_gone(f"STREAM.INFO.{stream}")
        state = {"first_seq": 0, "last_seq": 0} if info is None else info["state"]
        made = "" if info is None else info["created"]
        if made != self._stream or state["last_seq"] < self._read:
            self._known, self._read, self._stream = {}, 0, made
        if state["last_seq"] > self._read:
            async for stored in self._broker.read(stream, prefix + job_key("*", "*"), self._read + 1):
                self._keep(stored.subject.removeprefix(prefix), stored)
            self._read = max(self._read, state["last_seq"])
        first = state["first_seq"]
        if any(place < first for place, _ in self._known.values()):
            self._known = {key: known for key, known in self._known.items() if known[0] >= first}

    def _keep(self, key: str, stored: Stored) -> None:
        self._read = max(self._read, stored.sequence)
        self._known.pop(key, None)
        if DELETED in stored.headers:
            return
        manifest = decoded(Manifest, stored.body, f"the manifest of job {key}")
        if manifest is not None:
            self._known[key] = (stored.sequence, manifest)
