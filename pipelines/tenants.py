"""The tenants that the operator has listed, as the broker knows them."""

import contextlib
from collections.abc import AsyncIterator

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.values import decoded
from schemas.tenants import LISTED, TenantList


async def store_tenants(broker: Broker, listed: TenantList) -> None:
    """Tell the fleet its tenants: workers, gateways and publishers follow this."""
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
    """Keep `broker.tenants` current until cancelled."""
    async for _ in follow_tenants(broker):
        pass
