"""Moves dead letters of listed tenants out of the shared stream, where earlier versions stored them, into their own."""

import math

from pipelines.broker import Broker
from pipelines.dead import HEADERS, Letter, delete_letter, failure_header, input_of, letters, without_input
from pipelines.jetstream import seconds_of
from schemas.errors import StoreError
from schemas.subjects import HEADER_FAILURE


async def move_letters(broker: Broker) -> int:
    """Move them, oldest first; how many. Call it once the tenants have their streams. Raises BrokerError.

    What was stored before a tenant was listed stays: nothing kept others from sending in its name.
    """
    listed_s = {tenant: await _listed_s(broker, tenant) for tenant in sorted(broker.tenants)}
    moved = 0
    if not listed_s:
        return 0
    async for letter in letters(broker):
        if letter.stored.stored_s >= listed_s.get(letter.failure.key.job.tenant, math.inf):
            moved += await _moved(broker, letter)
    return moved


async def _listed_s(broker: Broker, tenant: str) -> float:
    """When a tenant was listed: its streams were made then."""
    info = await broker.api_unless_gone(f"STREAM.INFO.{broker.names.results_of(tenant)}")
    return math.inf if info is None else seconds_of(info["created"])


async def _moved(broker: Broker, letter: Letter) -> bool:
    """Whether there was room for a letter. One whose input is too old is moved without it, and says so."""
    job, stored = letter.failure.key.job, letter.stored
    subject = broker.names.dead(job.pipeline, letter.failure.stage, job.tenant)
    headers = {name: stored.headers[name] for name in HEADERS if name in stored.headers}
    try:
        body = await input_of(broker, letter)
    except StoreError as gone:
        body, headers[HEADER_FAILURE] = b"", failure_header(without_input(letter.failure, gone))
    try:
        await broker.publish_soon(subject, body, f"{letter.stream}/{letter.number}/moved", headers)
    except StoreError:  # the storage of its tenant is full, or smaller than its input
        return False
    await delete_letter(broker, letter)
    return True
