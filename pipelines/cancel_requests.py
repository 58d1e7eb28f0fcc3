"""Requests to cancel a job, from programs that only speak NATS: messages of a queue, which workers carry out.

A request is an empty message on `rigflow.cancel.<tenant>.<pipeline>.<job>`. It has a queue of its own, so that it waits
behind no media, and so that a program that may only send requests can fill no other queue.
"""

import asyncio
import logging
from contextlib import suppress

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.job_records import find_manifest
from pipelines.jobs import cancel
from pipelines.pull import Pull
from pipelines.registry import load_pipeline
from schemas.declared import is_token
from schemas.errors import Disposition, RigflowError, UsageError
from schemas.fields import clean_name
from schemas.jobs import JobRef, Manifest, Priority

RETRY_S = 2.0
LOOK_S = 2.0  # between two looks at which tenants there are
log = logging.getLogger("rigflow")


async def carry_out_cancel_requests(broker: Broker) -> None:
    """Cancel the jobs that are asked for, of each queue of requests one after the other, until this is cancelled."""
    pulls: dict[str, Pull] = {}
    try:
        while True:
            wanted = {broker.names.cancel_of(tenant) for tenant in ("", *broker.names.tenants)}
            for stream in wanted - pulls.keys():
                pulls[stream] = await _opened(broker, stream)
            for stream in pulls.keys() - wanted:
                await pulls.pop(stream).close()
            await asyncio.sleep(LOOK_S)
    finally:
        with suppress(RigflowError):
            await asyncio.gather(*(pull.close() for pull in pulls.values()))


async def _opened(broker: Broker, stream: str) -> Pull:
    async def on_delivery(delivery: Delivery) -> None:
        try:
            await _carry_out(broker, delivery.subject)
            await delivery.ack()
        except RigflowError as error:
            log.warning("the request %s: %s", clean_name(delivery.subject), error)
            rejected = error.disposition is Disposition.REJECT
            await (delivery.terminate(str(error)) if rejected else delivery.retry(RETRY_S))
        finally:
            pull.request(1)

    pull = Pull(broker, stream, Priority.INTERACTIVE.value, on_delivery)
    await pull.open()
    pull.request(1)
    return pull


async def _carry_out(broker: Broker, subject: str) -> None:
    tenant, pipeline, job = subject.split(".")[-3:]
    if not all(map(is_token, (tenant, pipeline, job))):
        raise UsageError("its subject names no job", "it is rigflow.cancel.<tenant>.<pipeline>.<job>")
    manifest = await find_manifest(broker, job, tenant)
    if manifest is not None and manifest.job.pipeline != pipeline:
        raise UsageError(f"job {job} goes through {manifest.job.pipeline}", "name that pipeline")
    if manifest is None or not manifest.state.ended:
        await audit(broker, "job-cancelled", job, tenant=tenant, asked="by a message")
    await cancel(broker, manifest or await _waiting(broker, tenant, pipeline, job), queued=False)


async def _waiting(broker: Broker, tenant: str, pipeline: str, job: str) -> Manifest:
    """The manifest of a job whose media waits in its queue, or has not come yet: it is dropped then."""
    spec = await load_pipeline(broker, pipeline)
    ref = JobRef(id=job, tenant=tenant, pipeline=spec.name, revision=spec.revision, priority=Priority.INTERACTIVE)
    return Manifest(job=ref, name=job, hosted=True, created_s=broker.now_s())
