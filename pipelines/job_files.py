"""The finished files of a job, read from the broker."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from pipelines.blobs import read_blob, read_blob_range
from pipelines.broker import Broker, Stored
from pipelines.claims import claim_of
from pipelines.result_index import result_index
from schemas.errors import StoreError
from schemas.fields import clean_name
from schemas.jobs import JobRef
from schemas.subjects import HEADER_CONTENT_TYPE, HEADER_ID, HEADER_NAME, HEADER_TYPE

ANY_TYPE = "application/octet-stream"
HEADER_SIZE = "Nats-Msg-Size"  # of the body, which the server adds where it leaves the body out
OBJECT_BYTES = 1 << 20  # of a file in a message, given out at a time


@dataclass(frozen=True, slots=True)
class JobFile:
    """One file: its name, type and size in bytes. `sequence` is its place among the results, `tag` its content's.

    Files of the same `tag` have the same bytes.
    """

    name: str
    content_type: str
    size: int
    sequence: int
    tag: str
    _broker: Broker
    _blob: str
    _subject: str

    @classmethod
    async def of(cls, broker: Broker, stored: Stored) -> "JobFile | None":
        """The file of a result, of which only the headers may be known; None when it is deleted meanwhile."""
        blob = claim_of(stored.subject, stored.headers)
        size = len(stored.body) or int(stored.headers.get(HEADER_SIZE, "0"))
        if blob:  # its size is the body of the message
            stream = broker.names.results_for(stored.subject)
            entire = stored if stored.body else await broker.message(stream, stored.sequence)
            if entire is None:
                return None
            size = int(entire.body) if entire.body.isdigit() else len(entire.body)
        return cls(
            _name(stored),
            stored.headers.get(HEADER_CONTENT_TYPE, ANY_TYPE),
            size,
            stored.sequence,
            stored.headers.get(HEADER_ID, "").rpartition("/")[2] or str(stored.sequence),
            broker,
            blob,
            stored.subject,
        )

    async def chunks(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Its bytes from `start` up to `end`, or all of them. What is before `start` is not read.

        Only all of them are checked against their digest, at the end. Raises StoreError when the file is gone.
        """
        end = self.size if end is None else end
        if self._blob:
            entire, bucket = (start, end) == (0, self.size), self._broker.names.blobs_for(self._subject)
            if entire:
                reading = read_blob(self._broker, bucket, self._blob)
            else:
                reading = read_blob_range(self._broker, bucket, self._blob, start, end)
            async with aclosing(reading):
                async for chunk in reading:
                    yield chunk
            return
        stored = await self._broker.message(self._broker.names.results_for(self._subject), self.sequence)
        if stored is None:
            raise StoreError(f"{self.name} is gone from the broker", "publish the job again")
        for at in range(start, end, OBJECT_BYTES):
            yield stored.body[at : min(end, at + OBJECT_BYTES)]

    async def read(self) -> bytes:
        """All of its bytes. Raises StoreError when the file is gone."""
        return b"".join([chunk async for chunk in self.chunks()])


async def job_files(
    broker: Broker, job: JobRef, after: int = 0, name: str | None = None
) -> AsyncGenerator[JobFile, None]:
    """The files of a job that the broker has, the newest of each name, in the order in which they came.

    Only those whose `sequence` is more than `after`; only the one of this `name`.
    """
    newest: dict[str, Stored] = {}
    async for stored in result_index(broker, [broker.names.results(job)]):
        if stored.headers.get(HEADER_TYPE) == "file":
            newest[stored.headers.get(HEADER_NAME, "")] = stored
    for stored in sorted(newest.values(), key=lambda each: each.sequence):
        if stored.sequence <= after or (name is not None and _name(stored) != name):
            continue
        file = await JobFile.of(broker, stored)
        if file is not None:
            yield file


async def job_file_at(broker: Broker, job: JobRef, sequence: int, name: str) -> JobFile | None:
    """The file of a job at a place among the results, without a look at its other files; None where it is another."""
    stored = await broker.message(broker.names.results_of(job.tenant), sequence)
    if stored is None or stored.subject != broker.names.results(job) or stored.headers.get(HEADER_TYPE) != "file":
        return None
    return await JobFile.of(broker, stored) if _name(stored) == name else None


def _name(stored: Stored) -> str:
    return clean_name(stored.headers.get(HEADER_NAME, "")) or "file"
