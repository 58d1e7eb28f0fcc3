"""Why nothing happens: what a client that has waited for a while is told, with what to do about it."""

import asyncio
from collections.abc import Sequence

from pipelines.bottleneck import FULL, bottleneck, hosts
from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.jobs import find_manifest
from pipelines.status import FleetStatus, fleet_status
from schemas.errors import RigflowError
from schemas.messages import JobRef

ANSWER_S = 10.0  # for all that the broker is asked here
JOBS = 16  # looked at, at most


async def why_waiting(broker: Broker, jobs: Sequence[JobRef]) -> str:
    """One line: what these jobs wait for, and what to do."""
    if not broker.connection.connected:
        return f"{broker.connection.absence}: start it, or see to the network; the connection is tried again and again"
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _lost_stream(broker, jobs) or await _of_fleet(broker, jobs)
    except TimeoutError:
        return f"the broker does not answer within {ANSWER_S:.0f} s: see its log, and the room on its disk"
    except RigflowError as error:
        return str(error)


async def _lost_stream(broker: Broker, jobs: Sequence[JobRef]) -> str:
    """What is wrong with the streams that hold jobs and results, if something is."""
    names = broker.names
    for stream in (names.results_stream, f"OBJ_{names.blobs}", f"KV_{names.jobs}", f"KV_{names.pipelines}"):
        info = await broker.api_unless_gone(f"STREAM.INFO.{stream}")
        if info is None:
            return f"the stream {stream} is gone from the broker: stop this, and start it again, which makes it anew"
        limit, used = info["config"]["max_bytes"], info["state"]["bytes"]
        if 0 < limit * FULL < used and not stream.startswith("KV_"):
            return f"{stream} is full: collect results of other jobs (`rigflow results`), or raise results_bytes"
    return ""


async def _of_fleet(broker: Broker, jobs: Sequence[JobRef]) -> str:
    fleet = await fleet_status(broker)
    pipelines = {job.pipeline for job in jobs}
    queues = [queue for queue in fleet.queues if queue.pipeline in pipelines]
    idle = next((queue for queue in queues if queue.stream.messages and not hosts(fleet.workers, queue)), None)
    if idle is not None or not fleet.workers:
        stage = f"{idle.pipeline} {idle.stage}" if idle is not None else ", ".join(sorted(pipelines))
        return f"no worker takes {stage}: start one with `rigflow worker` or `rigflow rig`"
    for queue in queues:
        if queue.stream.messages and not any(lane.waiting or lane.in_flight for lane in queue.lanes.values()):
            return (
                f"a consumer of the queue in front of {queue.pipeline} {queue.stage} is gone from the broker: "
                "stop this, and start it again, which makes it anew"
            )
    if not any(queue.stream.messages for queue in queues):
        for job in jobs[:JOBS]:
            if lost := await _lost_results(broker, job):
                return lost
    return _verdict(fleet)


async def _lost_results(broker: Broker, job: JobRef) -> str:
    """Whether results of a job are missing that nothing can bring any more: nothing of its pipeline is queued."""
    manifest = await find_manifest(broker, job.id, job.space)
    if manifest is None or manifest.total is None:
        return ""
    missing = (await take_inventory(broker, manifest)).missing
    if not missing or manifest.job.round != job.round:
        return ""
    why = f"results are kept for {broker.settings.results_age_s:.0f} s (results_age_s)"
    return f"{len(missing)} segments of job {job.id} are gone from the broker, {why}: publish it again"


def _verdict(fleet: FleetStatus) -> str:
    said = bottleneck(fleet)
    return said[:1].lower() + said[1:]
