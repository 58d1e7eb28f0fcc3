"""The streams and consumers that pipelines need."""

from collections.abc import Mapping, Sequence

from pipelines.stream_plans import (
    BLOB_AGE_S,
    DAY_S,
    MEDIA_AGE_S,
    SMALL_BYTES,
    Config,
    StreamPlan,
    bucket,
    cancel_queue,
    dead_letters,
    jobs_bucket,
    objects,
    prioritised,
    replicated,
    stream,
)
from pipelines.tenant_streams import tenant_streams, with_tenants
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import COLLECT, Names
from schemas.tenants import MAIN, Tenant

__all__ = ["Config", "StreamPlan", "desired", "replicated"]

USAGE_AGE_S = 400 * DAY_S  # what jobs used: more than a year
ATTEMPT_AGE_S = DAY_S  # records of attempts at a message that was not finished
RIG_AGE_S = 10.0  # the status of a worker that sends no status any more
SEEN_BYTES = 16 << 20  # of rigs that run or ran: some thousands
AUDIT_BYTES = 64 << 20  # about 200,000 changes; the oldest go when it is full
AUDIT_EACH = 5000  # of one role, action and listed tenant, so that none of them fills it
USAGE_BYTES = 512 << 20  # about a million jobs
UNBOUNDED = -1  # limited only by the size of the broker's store
TENANTS_BYTES = 1 << 20  # the list of tenants
JOIN_TOKENS_BYTES = 1 << 20  # some hundreds


def desired(
    names: Names, settings: Settings, specs: Sequence[PipelineSpec], tenants: Mapping[str, Tenant] | None = None
) -> list[StreamPlan]:
    """What the broker should have for these pipelines."""
    tenants = tenants or {}
    prefix, shared = names.prefix, MAIN if tenants else "*"  # with a list of tenants, nobody else can send anything
    results = f"{prefix}.results.{MAIN}.>" if tenants else f"{prefix}.results.>"
    queues = [(spec.name, stage) for spec in specs for stage in (*(stage.name for stage in spec.stage), COLLECT)]
    results_age_s = settings.results_age_s
    plans = [
        StreamPlan(bucket(names.pipelines, UNBOUNDED)),
        StreamPlan(jobs_bucket(names.jobs, SMALL_BYTES)),
        StreamPlan(bucket(names.keys, SMALL_BYTES)),
        StreamPlan(bucket(names.join_tokens, JOIN_TOKENS_BYTES, allow_msg_ttl=True)),
        StreamPlan(bucket(names.tenants_bucket, TENANTS_BYTES)),
        StreamPlan(bucket(names.profiles, SMALL_BYTES)),
        StreamPlan(bucket(names.rigs, SMALL_BYTES, RIG_AGE_S, discard="old")),
        StreamPlan(bucket(names.last_seen, SEEN_BYTES, settings.rigs_age_s, discard="old")),
        StreamPlan(bucket(names.attempts, SMALL_BYTES, ATTEMPT_AGE_S, discard="old")),
        StreamPlan(objects(names.models, UNBOUNDED)),
        StreamPlan(objects(names.engines, UNBOUNDED)),
        StreamPlan(objects(names.blobs, settings.results_bytes, BLOB_AGE_S)),
        StreamPlan(stream(names.results_stream, [results], settings.results_bytes, results_age_s)),
        dead_letters(names, "", settings.dead_bytes),
    ]
    usage = {"max_msgs_per_subject": 1, "discard": "old"}
    plans.append(StreamPlan(stream(names.usage_stream, [f"{prefix}.usage.>"], USAGE_BYTES, USAGE_AGE_S, **usage)))
    append_only: Config = {
        "deny_delete": True,
        "deny_purge": True,
        "discard": "old",
        "max_msgs_per_subject": AUDIT_EACH,
    }
    plans.append(StreamPlan(stream(names.audit_stream, [f"{prefix}.audit.>"], AUDIT_BYTES, **append_only)))
    plans.append(cancel_queue(names, settings, shared))
    plans += [_media(names, settings, spec.name, shared) for spec in specs]
    plans += [_work_queue(names, settings, pipeline, stage) for pipeline, stage in queues]
    plans += tenant_streams(names, settings, [spec.name for spec in specs], tenants)
    return [replicated(plan, settings.durability.replicas) for plan in plans]


def _media(names: Names, settings: Settings, pipeline: str, tenant: str) -> StreamPlan:
    """The queue of raw media for one pipeline.

    A message for a pipeline without this stream gets "no responders" at once. Each pipeline has its own stream, because
    processes that add subjects to one stream at the same time overwrite each other's change.
    """
    subjects = {priority.value: names.media(tenant, pipeline, priority) for priority in Priority}
    return prioritised(names.media_stream(pipeline), subjects, settings, MEDIA_AGE_S)


def _work_queue(names: Names, settings: Settings, pipeline: str, stage: str) -> StreamPlan:
    subjects = {priority.value: names.work(pipeline, stage, priority) for priority in Priority}
    plan = prioritised(names.work_stream(pipeline, stage), subjects, settings)
    return with_tenants(plan, names, settings, pipeline, stage)
