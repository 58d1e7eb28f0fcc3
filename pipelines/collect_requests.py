"""Asks a worker to collect a job: it publishes the files of the job, and its Done."""

from pipelines.broker import Broker
from pipelines.tracing import place_of
from schemas.jobs import Manifest
from schemas.messages import CollectRequest
from schemas.subjects import COLLECT


async def request_collect(broker: Broker, manifest: Manifest, reason: str) -> None:
    """Send the request for a job, once for each `reason`."""
    job = manifest.job
    subject = broker.names.work(job.pipeline, COLLECT, job.priority, job.tenant)
    request = CollectRequest(job=job, name=manifest.name)
    await broker.publish(subject, request.encode(), f"{reason}/{COLLECT}", place_of(manifest))
