"""The streams that each listed tenant has for itself, and its consumers at the queues of the fleet.

What a tenant sends and gets is in streams of its own, so that none can fill, read or empty those of another. The queues
between the stages are shared: each has a subject and a consumer for every tenant, so that workers choose among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.stream_plans import (
    BLOB_AGE_S,
    MEDIA_AGE_S,
    SMALL_BYTES,
    Config,
    StreamPlan,
    cancel_queue,
    consumer,
    dead_letters,
    jobs_bucket,
    objects,
    prioritised,
    stream,
)
from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.tenants import Tenant


def tenant_streams(
    names: Names, settings: Settings, pipelines: Sequence[str], tenants: Mapping[str, Tenant]
) -> list[StreamPlan]:
    """What each tenant has for itself."""
    plans: list[StreamPlan] = []
    for name, tenant in tenants.items():
        subjects, stored = [f"{names.prefix}.results.{name}.>"], tenant.storage_bytes
        plans += [
            StreamPlan(stream(names.results_of(name), subjects, stored, settings.results_age_s)),
            StreamPlan(objects(names.blobs_of(name), stored, BLOB_AGE_S)),
            dead_letters(names, name, min(settings.dead_bytes, stored // 4)),
            StreamPlan(objects(names.uploads_of(name), tenant.queued_bytes, BLOB_AGE_S)),
            cancel_queue(names, settings, name),
            *([StreamPlan(jobs_bucket(names.jobs_of(name), min(SMALL_BYTES, stored // 8)))] if names.own_jobs else []),
            *(_media(names, settings, pipeline, name, tenant) for pipeline in pipelines),
        ]
    return plans


def _media(names: Names, settings: Settings, pipeline: str, name: str, tenant: Tenant) -> StreamPlan:
    subjects = {names.consumer(priority, name): names.media(name, pipeline, priority) for priority in Priority}
    limits: dict[str, Any] = {"max_bytes": tenant.queued_bytes, "max_msgs": tenant.jobs}
    plan = prioritised(names.media_stream(pipeline, name), subjects, settings, MEDIA_AGE_S)
    return replace(plan, config=plan.config | limits)


def with_tenants(plan: StreamPlan, names: Names, settings: Settings, pipeline: str, stage: str) -> StreamPlan:
    """The queue of a stage with a subject and a consumer of each tenant and priority."""
    if not names.tenants:
        return plan
    subjects = [*plan.config["subjects"], *(f"{subject}.*" for subject in plan.config["subjects"])]
    consumers: list[Config] = [
        consumer(settings, names.consumer(priority, tenant), names.work(pipeline, stage, priority, tenant))
        for tenant in sorted(names.tenants)
        for priority in Priority
    ]
    return StreamPlan(plan.config | {"subjects": subjects}, (*plan.consumers, *consumers))
