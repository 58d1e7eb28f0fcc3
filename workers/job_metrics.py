"""Metrics of jobs, from what each of them used: the broker has one message for each job that ended."""

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from pipelines.broker import Broker
from pipelines.follow import follow
from pipelines.jetstream import Gone
from pipelines.usage import ended_job
from schemas.errors import RigflowError
from schemas.usage import EndedJob, Used
from workers.samples import counter, histogram

BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)
REMEMBERED = 20_000  # jobs that were counted: the end of one may be stored again
AWAY_S = 2.0  # before the stream is followed again
TENANT, KEY = ("tenant", "pipeline"), ("tenant", "key", "pipeline")
_FAMILIES = (  # end of the name, what it counts, and the field of what jobs used
    ("", "Jobs that ended.", "jobs"),
    ("failures", "Of these, jobs that ended with failures.", "failed"),
    ("frames", "Frames of the jobs that ended.", "frames"),
    ("media_seconds", "Seconds of media of the jobs that ended.", "media_s"),
    ("device_seconds", "Seconds that devices computed for the jobs that ended.", "computed_s"),
    ("input_bytes", "Bytes of the media of the jobs that ended.", "nbytes"),
    ("tokens", "Tokens that language models read and wrote for the jobs that ended.", "tokens"),
)


@dataclass(slots=True)
class JobCounts:
    """Jobs of one tenant and pipeline; `steps[n]` of them took at most `BUCKETS_S[n]` seconds."""

    used: Used = field(default_factory=Used)
    took_s: float = 0.0
    steps: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def add(self, job: EndedJob) -> None:
        """Count a job."""
        self.used += job
        self.took_s += job.took_s
        self.steps[bisect_left(BUCKETS_S, job.took_s)] += 1


class EndedJobs:
    """Counts the jobs that end while this rig runs, whichever rig or command collects them: `follow` for ever."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], JobCounts] = {}
        self.by_key: dict[tuple[str, str, str], Used] = {}  # tenant, API key (`-`: none) and pipeline
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._next: int | None = None  # the sequence in the stream to go on at

    async def follow(self, broker: Broker, first: int | None = None) -> None:
        """Count the jobs that end from now on, or from sequence `first` of the stream on."""
        self._next = first
        while True:
            try:
                await self._follow(broker)
            except Gone:  # a fleet without pipelines: what comes into the stream ended later
                self._next = 1
            except RigflowError:  # the broker is away, or does not permit it: the rig's other metrics go on
                pass
            await asyncio.sleep(AWAY_S)

    async def _follow(self, broker: Broker) -> None:
        stream = broker.names.usage_stream
        if self._next is None:
            self._next = (await broker.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"] + 1
        subjects = [f"{broker.names.prefix}.usage.>"]
        async with aclosing(follow(broker, stream, subjects, first=self._next)) as following:
            async for stored in following:
                if stored is None:
                    continue
                self._next = stored.sequence + 1
                if (found := ended_job(stored)) is not None:
                    self.count(stored.subject, *found)

    def count(self, subject: str, tenant: str, key: str, pipeline: str, job: EndedJob) -> None:
        """Count a job once; `subject` is its own."""
        if subject in self._counted:
            return
        self._counted[subject] = None
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)
        self.counts.setdefault((tenant, pipeline), JobCounts()).add(job)
        self.by_key[tenant, key, pipeline] = self.by_key.get((tenant, key, pipeline), Used()) + job


def job_families(
    counts: Mapping[tuple[str, str], JobCounts], by_key: Mapping[tuple[str, str, str], Used]
) -> Iterator[Metric]:
    """Every family of jobs, in the order of docs/metrics.md."""
    steps = ((key, each.steps, each.took_s) for key, each in counts.items())
    yield histogram("rigflow_job_seconds", "Time of a job from its arrival to its end.", TENANT, BUCKETS_S, steps)
    for name, text, attribute in _FAMILIES:
        samples = [(key, float(getattr(each.used, attribute))) for key, each in counts.items()]
        yield counter(f"rigflow_job_{name}" if name else "rigflow_jobs", text, TENANT, samples)
    for name, text, attribute in _FAMILIES:
        of_keys = [(key, float(getattr(used, attribute))) for key, used in by_key.items()]
        text = f"{text[:-1]}, by API key (`-`: none)."
        yield counter(f"rigflow_key_{name}" if name else "rigflow_key_jobs", text, KEY, of_keys)
