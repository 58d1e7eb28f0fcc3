"""Finds the reason why a client waits, and what to do about it."""

import asyncio
from collections.abc import Sequence

from pipelines.bottleneck import FULL, bottleneck, has_backlog, hosts, in_process
from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.job_records import find_manifest
from pipelines.lost_jobs import why_lost
from pipelines.queued import is_idle
from pipelines.status import FleetStatus, fleet_status
from schemas.errors import RigflowError
from schemas.jobs import JobRef

ANSWER_S = 10.0  # for all requests together
_GOES_ON = "work goes on"
_AWAY = "start it, or check the network; rigflow keeps trying to connect"
JOBS = 16  # jobs that are checked, at most


async def why_waiting(broker: Broker, jobs: Sequence[JobRef]) -> str:
    """One line: what these jobs wait for, and what to do."""
    if not broker.connection.connected:
        return f"{broker.connection.absence}: {_AWAY}"
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _lost_stream(broker, jobs) or await _of_fleet(broker, jobs)
    except TimeoutError:
        return f"the broker does not answer within {ANSWER_S:.0f} s: check its log, and the free space on its disk"
    except RigflowError as error:
        return str(error)


def goes_on(why: str) -> bool:
    """Whether a reason says that nobody waits: the fleet works."""
    return why.startswith(_GOES_ON)


def is_away(why: str) -> bool:
    """Whether a reason says that the broker is away."""
    return why.endswith(_AWAY)


async def _lost_stream(broker: Broker, jobs: Sequence[JobRef]) -> str:
    """The problem of the streams that hold jobs and results; empty when there is none."""
    names = broker.names
    tenant = jobs[0].tenant if jobs else ""
    for stream in (
        names.results_of(tenant),
        f"OBJ_{names.blobs_of(tenant)}",
        f"KV_{names.jobs_of(tenant)}",
        f"KV_{names.pipelines}",
    ):
        info = await broker.api_unless_gone(f"STREAM.INFO.{stream}")
        if info is None:
            return f"the stream {stream} is gone from the broker: start a new job, which creates it: `rigflow run`"
        limit, used = info["config"]["max_bytes"], info["state"]["bytes"]
        if 0 < limit * FULL < used and not stream.startswith("KV_"):
            more = "raise results_bytes and run `rigflow topology apply`"
            return f"{stream} is full: collect results of other jobs (`rigflow results`), or {more}"
    return ""


async def _of_fleet(broker: Broker, jobs: Sequence[JobRef]) -> str:
    fleet = await fleet_status(broker)
    pipelines = {job.pipeline for job in jobs}
    queues = [queue for queue in fleet.queues if queue.pipeline in pipelines]
    idle = next((queue for queue in queues if queue.stream.messages and not hosts(fleet.workers, queue)), None)
    if idle is not None or not fleet.workers:
        stage = f"{idle.pipeline} {idle.stage}" if idle is not None else ", ".join(sorted(pipelines))
        if idle is not None and (why := _declined(fleet, idle.pipeline)):
            return f"no worker takes {stage}: {why}"
        return (  # a worker that starts, or whose ONNX Runtime parses a model, does not answer
            f"no worker takes {stage} yet: one that starts or loads a model needs some seconds; "
            "if none runs, start one with `rigflow worker` or `rigflow rig`"
        )
    for queue in queues:
        if queue.stream.messages and not any(
            priority.waiting or priority.in_flight for priority in queue.priorities.values()
        ):
            return (
                f"a consumer of the queue in front of {queue.pipeline} {queue.stage} is gone from the broker: "
                "start a new job, which creates it: `rigflow run`"
            )
    for job in jobs[:JOBS]:
        if why := await _without_messages(broker, job):
            return why
    if any(queue.stream.messages for queue in queues) and not any(map(has_backlog, fleet.queues)):
        return f"{_GOES_ON}: {in_process(fleet)}"
    return _verdict(fleet)


def _declined(fleet: FleetStatus, pipeline: str) -> str:
    """Why a worker takes no work of a pipeline; empty if none of them says so."""
    reasons = (worker.get("declined", {}).get(pipeline) for worker in fleet.workers)
    return next((str(reason) for reason in reasons if reason), "")


async def _without_messages(broker: Broker, job: JobRef) -> str:
    """Why a job gets no result that it lacks though its pipeline is idle, as a line; empty while it may get some."""
    manifest = await find_manifest(broker, job.id, job.tenant)
    if manifest is None or manifest.state.ended or manifest.job.generation != job.generation:
        return ""
    if (lost := await why_lost(broker, manifest)) is not None:
        return str(lost)
    collected_elsewhere = manifest.hosted or not manifest.gathers or not await is_idle(broker, job.pipeline)
    if collected_elsewhere or not (await take_inventory(broker, manifest)).awaits_gathering:
        return ""
    last = f"all parts of job {job.id} are done, and the stage that takes them as one is run when it is collected"
    return f"{last}: `rigflow results {job.id}`"


def _verdict(fleet: FleetStatus) -> str:
    text = bottleneck(fleet)
    return text[:1].lower() + text[1:]
