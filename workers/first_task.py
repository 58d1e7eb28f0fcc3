"""Makes the first task of a message: to decode a segment, or to run a part through the next stage."""

from engines.part import Tick, decode_part
from schemas.errors import RigflowError
from schemas.messages import decode
from schemas.parts import PartMessage
from schemas.segments import Segment
from workers.in_flight import InFlight, Task
from workers.stages import LoadedPipeline

Content = Segment | PartMessage


async def read_content(message: InFlight) -> tuple[Content, list[memoryview]]:
    """What a message holds, and its buffers. Raises RigflowError when it does not belong in its queue."""
    content, buffers = decode(await message.delivery.load())
    if not isinstance(content, Segment | PartMessage):
        stage = message.queue.stage
        raise RigflowError(f"a message of type {content.type} does not belong in the queue of stage {stage}")
    message.job = content.key.job
    if message.job.pipeline != message.queue.pipeline:
        raise RigflowError(f"a message of pipeline {message.job.pipeline} is in the queue of another pipeline")
    check_tenant(message)
    return content, buffers


def check_tenant(message: InFlight) -> None:
    """Raise RigflowError for a message of another tenant than its queue: its results would be that tenant's."""
    if message.job is not None and message.queue.tenant not in ("", message.job.tenant):
        raise RigflowError(f"a message of tenant {message.job.tenant} is in the queue of tenant {message.queue.tenant}")


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
