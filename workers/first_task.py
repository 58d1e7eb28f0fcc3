"""Makes the first task of a message: to decode a segment, or to run a part through the next stage."""

from engines.part import Tick, decode_part
from schemas.errors import RigflowError
from schemas.jobs import JobRef
from schemas.messages import decode
from schemas.parts import PartMessage
from schemas.segments import Segment
from schemas.subjects import Names
from schemas.tenants import MAIN
from workers.in_flight import InFlight, Task
from workers.stages import LoadedPipeline

Content = Segment | PartMessage


async def read_content(message: InFlight, names: Names) -> tuple[Content, list[memoryview]]:
    """What a message holds, and its buffers. Raises RigflowError when it does not belong in its queue."""
    content, buffers = decode(await message.delivery.load())
    if not isinstance(content, Segment | PartMessage):
        stage = message.queue.stage
        raise RigflowError(f"a message of type {content.type} does not belong in the queue of stage {stage}")
    check_queue(message, content.key.job, names)
    message.job = content.key.job
    return content, buffers


def check_queue(message: InFlight, job: JobRef, names: Names) -> None:
    """Raise RigflowError for a message of another pipeline or tenant than its queue: its results would be theirs.

    Call it before `message.job` is set: the failure of a message with a job is published under that job.
    """
    queue = message.queue
    if job.pipeline != queue.pipeline:
        raise RigflowError(f"a message of pipeline {job.pipeline} is in the queue of another pipeline")
    if queue.tenant != (job.tenant if job.tenant in names.tenants else ""):
        whose = f"of tenant {queue.tenant}" if queue.tenant else "that tenants share"
        raise RigflowError(f"a message of tenant {job.tenant} is in the queue {whose}")
    if names.tenants and job.tenant not in (MAIN, *names.tenants):  # no stream takes its results
        raise RigflowError(f"the fleet has no tenant {job.tenant} any more")


def first_task(
    message: InFlight, content: Content, buffers: list[memoryview], pipeline: LoadedPipeline, tick: Tick
) -> Task:
    """The first task of a message. Raises RigflowError when its stage does not take it."""
    stage = message.queue.stage
    if stage not in pipeline.hosted:
        raise RigflowError(f"this revision of the pipeline has no stage {stage} here")
    if isinstance(content, PartMessage):
        return Task(message, pipeline, stage, part=decode_part(content, buffers))
    if stage != pipeline.spec.decode.name:
        raise RigflowError(f"a segment does not belong in the queue of stage {stage}")
    return Task(message, pipeline, stage, parts=pipeline.decode(content, buffers, tick))
