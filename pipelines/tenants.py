"""The tenants that the operator has listed, as the broker knows them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.values import decoded
from schemas.errors import RigflowError
from schemas.tenants import LISTED, TenantList

AGAIN_S = 5.0  # pause before the list is followed again
log = logging.getLogger("rigflow")


async def store_tenants(broker: Broker, listed: TenantList) -> None:
    """Tell the fleet its tenants: workers and gateways follow this, publishers read it when they connect."""
    await audit(broker, "tenants-listed", ",".join(sorted(listed.tenants)) or "none")
    await broker.put(broker.names.tenants_bucket, LISTED, listed.model_dump_json().encode())
    broker.take_tenants(listed)


async def follow_tenants(broker: Broker) -> AsyncIterator[None]:
    """Keep `broker.tenants` current until cancelled; yields after each change."""
    following = follow_bucket(broker, broker.names.tenants_bucket, LISTED)
    async with contextlib.aclosing(following):  # type: ignore[type-var]
        async for _, body in following:
            listed = decoded(TenantList, body, "the list of tenants")
            if listed is not None and listed.tenants != broker.tenants:
                broker.take_tenants(listed)
                yield


async def keep_tenants(broker: Broker) -> None:
    """Keep `broker.tenants` current until cancelled; if that fails, it is logged and begins again."""
    while True:
        try:
            async for _ in follow_tenants(broker):
                pass
        except RigflowError as error:
            log.warning("the list of tenants could not be followed, and is read again: %s", error)
            await asyncio.sleep(AGAIN_S)
