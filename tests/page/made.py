"""Jobs and files that are put into a broker as they are, for lists that would take a fleet hours."""

from pipelines.broker import Broker
from pipelines.job_records import job_key
from schemas.jobs import JobRef, JobState, Manifest
from schemas.subjects import HEADER_CONTENT_TYPE, HEADER_NAME, HEADER_TYPE

BEGUN_S = 1_795_000_000.0


async def put_job(
    broker: Broker, name: str, shown: str, state: JobState, reasons: tuple[str, ...] = (), number: int = 0
) -> JobRef:
    """A job that has ended; the later ones of equal `number` are newer."""
    tenant = broker.settings.tenant
    job = JobRef(id=name, tenant=tenant, pipeline="simulated", revision="0" * 16)
    begun_s = BEGUN_S + number + int("".join(filter(str.isdigit, name)) or 0)
    known = Manifest(
        job=job,
        name=shown,
        state=state,
        segments=4,
        total=4,
        segments_done=4,
        failures=len(reasons),
        reasons=reasons,
        created_s=begun_s,
        updated_s=begun_s + 5,
        ended_s=begun_s + 5,
    )
    await broker.put(broker.names.jobs, job_key(tenant, name), known.model_dump_json().encode())
    return job


async def put_file(broker: Broker, job: JobRef, name: str, body: bytes, content_type: str = "") -> None:
    """A finished file of a job."""
    headers = {
        HEADER_TYPE: "file",
        HEADER_NAME: name,
        HEADER_CONTENT_TYPE: content_type or "application/octet-stream",
    }
    await broker.publish(broker.names.results(job), body, f"{job.id}/{name.encode().hex()}", headers)
