"""The vectors that `embed` stored in the fleet, kept between searches up to a number of bytes."""

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.library.results import Embedded, read_embedded
from engines.part import Array
from pipelines.broker import Broker, Stored
from pipelines.job_files import JobFile
from pipelines.registry import known_pipelines
from pipelines.result_index import result_index
from schemas.jobs import JobRef, JobState, Manifest
from schemas.subjects import HEADER_NAME, HEADER_TYPE

FORMAT = "embeddings"
KEPT_BYTES = 256 << 20  # of vectors: 130,000 pictures of 512 numbers
MOST_FILE_BYTES = 64 << 20  # of one result
AT_ONCE = 200  # jobs whose results are listed by one request


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors `[N, D]` float32 of one job, made by one model; a name and the seconds `[N]` of each, NaN: images."""

    job: Manifest
    model: str
    identity: str
    vectors: Array
    names: Sequence[str]
    times: Array


@dataclass(frozen=True, slots=True)
class Collection:
    """What can be searched; `left_out` jobs are older and did not fit."""

    jobs: Sequence[Vectors]
    left_out: int


class Library:
    """Vectors of jobs: a job is read once, while its vectors are among the last that were used."""

    def __init__(self) -> None:
        self._known: OrderedDict[JobRef, Sequence[Vectors]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def collection(self, broker: Broker, jobs: Sequence[Manifest]) -> Collection:
        """The vectors of those of `jobs` that have some, the newest jobs first. Raises BrokerError, StoreError."""
        specs = await known_pipelines(broker)
        embedding = {spec.name for spec in specs if spec.encode.format == FORMAT}
        wanted = [each for each in jobs if each.state is JobState.DONE and each.job.pipeline in embedding]
        wanted.sort(key=lambda each: each.created_s, reverse=True)
        found, nbytes = list[Vectors](), 0
        async with self._lock:
            for first in range(0, len(wanted), AT_ONCE):
                if nbytes > KEPT_BYTES:
                    return Collection(found, len(wanted) - first)
                for made in await self._of(broker, wanted[first : first + AT_ONCE]):
                    nbytes += _bytes_of(made)
                    found += made
        return Collection(found, 0)

    async def _of(self, broker: Broker, jobs: Sequence[Manifest]) -> list[Sequence[Vectors]]:
        new = [each for each in jobs if each.job not in self._known]
        self._known |= await _read(broker, new) if new else {}
        for each in jobs:
            self._known.move_to_end(each.job)
        made = [self._known[each.job] for each in jobs]
        while sum(map(_bytes_of, self._known.values())) > 2 * KEPT_BYTES:
            self._known.popitem(last=False)
        return made


async def _read(broker: Broker, jobs: Sequence[Manifest]) -> dict[JobRef, Sequence[Vectors]]:
    """The vectors of each job; none where it has no such result, or one that is too large."""
    by_subject = {broker.names.results(each.job): each for each in jobs}
    newest: dict[tuple[str, str], Stored] = {}
    async for stored in result_index(broker, list(by_subject)):
        if stored.headers.get(HEADER_TYPE) == "file":
            newest[stored.subject, stored.headers.get(HEADER_NAME, "")] = stored
    made: dict[JobRef, list[Vectors]] = {each.job: [] for each in jobs}
    for stored in newest.values():
        file = await JobFile.of(broker, stored)
        if file is None or not file.name.endswith(".npz") or file.size > MOST_FILE_BYTES:
            continue
        found = await asyncio.to_thread(_parsed, await file.read())
        if found is not None:
            job = by_subject[stored.subject]
            made[job.job].append(_of_job(job, found))
    return dict(made)


def _bytes_of(made: Sequence[Vectors]) -> int:
    return sum(each.vectors.nbytes for each in made)


def _parsed(content: bytes) -> Embedded | None:
    with tempfile.NamedTemporaryFile(prefix="rigflow-search-", suffix=".npz") as copy:
        copy.write(content)
        copy.flush()
        return read_embedded(Path(copy.name))


def _of_job(job: Manifest, found: Embedded) -> Vectors:
    """A name of a picture is its file's, where it is known; a film is called as its job."""
    timed = bool(np.isfinite(found.times).all()) and len(found.times) > 0
    names = [job.name if timed else media.rpartition(":")[2].rpartition("/")[2] or job.name for media in found.media]
    return Vectors(job, found.model, found.identity, found.vectors, names, found.times)
