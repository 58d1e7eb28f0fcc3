"""The rule when results of a job are lost: some are missing, and its pipeline is idle: no message can bring them.

A message is acknowledged after its results are stored, so the queues are looked at first, and then the results.
"""

from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.jetstream import Gone
from pipelines.job_records import JobCancelled, JobRecord
from pipelines.queued import is_idle
from schemas.jobs import JobRef, Manifest

LOST_S = 10.0  # after this time without a result, processes that wait look whether results are lost
_HINT = "publish it again; it is started again then"


async def why_lost(broker: Broker, known: Manifest) -> Gone | None:
    """Why a job that is not over gets no result any more; None while it may get some. Raises BrokerError."""
    if known.total is None or known.results_evicted:  # its collector took results that are not at the broker any more
        return None
    if not await is_idle(broker, known.job.pipeline):
        return None
    taken = await take_inventory(broker, known)
    return None if taken.done is not None or taken.complete or taken.awaits_gathering else _lost(known.job)


async def why_collected_lost(
    broker: Broker, job: JobRef, awaited: bool, again: bool, idle: bool
) -> Gone | JobCancelled | None:
    """The same of a job whose collector lacks results; also when it was cancelled, or begun again. Raises BrokerError.

    `awaited`: all of it is published. `again`: it is collected once more, without the parts that are in doubt. `idle`:
    its pipeline is, and the collector has read all results.
    """
    try:
        record = await JobRecord.current(broker, job)
    except JobCancelled as error:  # the process that began the job again deleted its Done before it was read here
        return error
    if not idle or not (awaited if record is None else record.manifest.total is not None):
        return None
    if again:
        return Gone(f"parts of job {job.id} are in doubt because of a card, and were not done again", _HINT)
    return _lost(job)


def _lost(job: JobRef) -> Gone:
    return Gone(f"the broker lost messages of job {job.id} (deleted, or older than results_age_s)", _HINT)
