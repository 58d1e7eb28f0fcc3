"""Says why a job that is collected gets no result any more."""

from pipelines.broker import Broker
from pipelines.collecting import CollectedJob
from pipelines.jetstream import Gone
from pipelines.job_records import JobCancelled, JobRecord


async def why_lost(broker: Broker, job: CollectedJob, again: bool) -> Gone | JobCancelled | None:
    """What ends a job of which results are missing while no stage has a message; None while it is being published.

    `again`: it is collected once more, without the parts that are in doubt. Raises BrokerError.
    """
    try:
        record = await JobRecord.current(broker, job.ref)
    except JobCancelled as error:  # the process that began the job again deleted its Done before it was read here
        return error
    if not (job.awaited if record is None else record.manifest.total is not None):
        return None
    what = f"the broker lost messages of job {job.ref.id} (deleted, or older than results_age_s)"
    if again:
        what = f"parts of job {job.ref.id} are in doubt because of a card, and were not done again"
    return Gone(what, "publish it again; it is started again then")
