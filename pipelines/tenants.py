"""The tenants that the operator has listed, as the broker knows them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.values import decoded
from schemas.errors import RigflowError, UsageError
from schemas.tenants import LISTED, Tenant, TenantList

AGAIN_S = 5.0  # pause before the list is followed again
log = logging.getLogger("rigflow")


async def list_number(broker: Broker) -> int:
    """The number of the list at the broker, 0 without one, for `store_tenants`.

    Raises UsageError when it is another list than that which this process has read.
    """
    bucket = broker.names.tenants_bucket
    entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{LISTED}")
    listed = None if entry is None else decoded(TenantList, entry.body, "the list of tenants")
    if listed is not None and _is_other(broker, listed):
        raise _changed()
    return 0 if entry is None else entry.sequence


def _is_other(broker: Broker, listed: TenantList) -> bool:
    return listed != broker.listed


async def store_tenants(broker: Broker, listed: TenantList, number: int) -> None:
    """Tell the fleet its tenants: workers and gateways follow this, publishers read it when they connect.

    It replaces the list of this number. Raises UsageError when another operator was faster.
    """
    entry = await broker.get(broker.names.tenants_bucket, LISTED)
    before = None if entry is None else decoded(TenantList, entry, "the list of tenants")
    changed = _changes({} if before is None else before.tenants, listed.tenants)
    await audit(broker, "tenants-listed", ",".join(sorted(listed.tenants)) or "none", **changed)
    if await broker.replace(broker.names.tenants_bucket, LISTED, listed.model_dump_json().encode(), number) is None:
        raise _changed()
    broker.take_tenants(listed)


def _changes(before: Mapping[str, Tenant], after: Mapping[str, Tenant]) -> dict[str, str]:
    """What differs in a list of tenants, each tenant by its name."""
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    said = {
        name: after[name].model_dump_json(exclude_defaults=True) if name in after else "removed" for name in differing
    }
    return {f"tenant {name}": text[:1000] for name, text in sorted(said.items())}


def _changed() -> UsageError:
    return UsageError(
        "another operator changes the tenants at this moment", "see `rigflow tenants list`, and try again"
    )


async def follow_tenants(broker: Broker) -> AsyncIterator[None]:
    """Keep `broker.tenants` current until cancelled; yields after each change."""
    following = follow_bucket(broker, broker.names.tenants_bucket, LISTED)
    async with contextlib.aclosing(following):  # type: ignore[type-var]
        async for _, body in following:
            listed = decoded(TenantList, body, "the list of tenants")
            if listed is not None and _is_other(broker, listed):
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
