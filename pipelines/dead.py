"""Dead letters: what failed, why, and the input that did it."""

from pipelines.broker import Broker
from schemas.messages import Failure
from schemas.subjects import HEADER_FAILURE, HEADER_SUBJECT, HEADER_TYPE


async def bury(broker: Broker, failure: Failure, body: bytes, subject: str) -> None:
    """Publish a failure: as the piece's result for whoever waits for it, then as a dead letter with its input."""
    job = failure.key.job
    failure_id = failure.key.message_id(f"failure-{failure.stage}")
    await broker.publish(broker.names.results(job), failure.encode(), failure_id, {HEADER_TYPE: "failure"})
    headers = {HEADER_FAILURE: failure.model_dump_json(), HEADER_SUBJECT: subject}
    await broker.publish(broker.names.dead(job.pipeline, failure.stage), body, failure_id, headers)
