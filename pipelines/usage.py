"""What jobs used: a message for each job that ended, on a subject of its own, so that a job counts once.

The end of a job may be processed twice, by collectors of which one was killed: the second message replaces the first.
"""

from collections import defaultdict
from collections.abc import Collection

from pipelines.broker import Broker, Stored
from pipelines.jetstream import Gone
from pipelines.values import decoded, report_skipped
from schemas.jobs import Manifest
from schemas.usage import NO_KEY, EndedJob, UsageOf, Used, day_of

_PLACES = {"tenant": -5, "key": -4, "pipeline": -3, "day": -2}  # tokens of the subject, from its end


async def record_usage(broker: Broker, ended: Manifest) -> None:
    """Store what a job used, by the manifest of its end."""
    job = ended.job
    day, once = day_of(ended.created_s), f"{job.id}-{job.generation}"
    subject = broker.names.usage(job.tenant, ended.submitter or NO_KEY, job.pipeline, day, once)
    identity = f"{job.identity}/usage/{ended.ended_s}"  # it ends again after a retry of what failed
    try:
        await broker.publish(subject, EndedJob.of(ended).model_dump_json().encode(), identity)
    except Gone:
        report_skipped(
            "the use of jobs", f"there is no stream {broker.names.usage_stream}: run `rigflow topology apply`"
        )


async def read_usage(
    broker: Broker, tenant: str, first_day: str, last_day: str, by: Collection[str]
) -> dict[UsageOf, Used]:
    """What jobs used that were begun from `first_day` to `last_day`: sums by "key", "pipeline" and "day", in order."""
    sums: defaultdict[UsageOf, Used] = defaultdict(Used)
    subject = broker.names.usage(tenant, "*", "*", "*", "*")
    async for stored in broker.read(broker.names.usage_stream, subject):
        named = _named(stored)
        used = decoded(Used, stored.body, stored.subject) if first_day <= named["day"] <= last_day else None
        if used is not None:
            place = UsageOf(tenant=tenant, **{name: token for name, token in named.items() if name in by})
            sums[place] += used
    return dict(sorted(sums.items(), key=lambda each: tuple(map(str, each[0].model_dump().values()))))


def ended_job(stored: Stored) -> tuple[str, str, str, EndedJob] | None:
    """Tenant, API key, pipeline and use of the job of a stored message; None when it cannot be read."""
    job, named = decoded(EndedJob, stored.body, stored.subject), _named(stored)
    return None if job is None else (named["tenant"], named["key"], named["pipeline"], job)


def _named(stored: Stored) -> dict[str, str]:
    """What the subject of a message says."""
    tokens = stored.subject.split(".")
    return {name: tokens[place] for name, place in _PLACES.items()}
