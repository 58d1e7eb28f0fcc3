"""What a change of the tenants does at the broker: streams, consumers, and the list that the fleet follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.broker import Broker
from pipelines.job_records import all_manifests
from pipelines.registry import hosted_pipelines
from pipelines.tenants import store_tenants
from pipelines.topology import Change, apply_topology, listed
from schemas.errors import UsageError
from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.tenants import Tenant, TenantList


@dataclass(frozen=True, slots=True)
class TenantState:
    """What a tenant has at the broker: media that wait, messages of its jobs, bytes that are stored, and its seconds of
    devices today.
    """

    media: int = 0
    media_bytes: int = 0
    queued: int = 0
    stored_bytes: int = 0
    used_s: float = 0.0


async def set_tenants(broker: Broker, settings: Settings, tenants: Mapping[str, Tenant]) -> list[Change]:
    """Give the fleet these tenants: their streams, then the list. Returns refused changes of streams.

    Raises UsageError when a new one has jobs that are not over: their results would go elsewhere.
    """
    for name in tenants.keys() - broker.tenants.keys():
        unfinished = [each.job.id for each in await all_manifests(broker, name) if not each.state.ended]
        if unfinished:
            what = f"{len(unfinished)} jobs of tenant {name} are not over, such as {unfinished[0]}"
            raise UsageError(what, "wait for them or cancel them, then add the tenant")
    broker.take_tenants(TenantList(tenants=tenants))
    refused = await apply_topology(broker, settings, await hosted_pipelines(broker))
    await store_tenants(broker, TenantList(tenants=tenants))
    return refused


async def state_of(broker: Broker, tenants: Sequence[str]) -> dict[str, TenantState]:
    """What each of these tenants has at the broker."""
    names, states = broker.names, {name: TenantState() for name in tenants}
    infos = {info["config"]["name"]: info["state"] for info in await listed(broker, "STREAM.LIST", "streams")}
    queued = await _queued(broker, [name for name in infos if name.startswith(names.work_stream("", "")[:-1])])
    for name in tenants:
        own = [state for stream, state in infos.items() if stream.endswith(f"@{name}")]
        stores = (names.results_of(name), f"OBJ_{names.blobs_of(name)}")
        states[name] = TenantState(
            media=sum(state["messages"] for state in own),
            media_bytes=sum(state["bytes"] for state in own),
            queued=queued.get(name, 0),
            stored_bytes=sum(infos[stream]["bytes"] for stream in stores if stream in infos),
            used_s=await broker.quotas.used_s(name),
        )
    return states


async def _queued(broker: Broker, streams: Sequence[str]) -> dict[str, int]:
    """Messages in the queues of the stages by tenant."""
    counts: dict[str, int] = {}
    for stream in streams:
        for consumer in await listed(broker, f"CONSUMER.LIST.{stream}", "consumers"):
            tenant = broker.names.listed_tenant(consumer["config"].get("filter_subject", ""))
            counts[tenant] = counts.get(tenant, 0) + consumer["num_pending"] + consumer["num_ack_pending"]
    return counts


async def check_removable(broker: Broker, name: str) -> None:
    """Raise UsageError when a tenant has work that is not done."""
    state = (await state_of(broker, [name]))[name]
    if state.media or state.queued:
        what = f"tenant {name} has work that is not done: {state.media} media, {state.queued} messages"
        raise UsageError(what, "wait for it, or drop it and all its results with --drop")


async def remove_tenant(broker: Broker, settings: Settings, name: str) -> list[Change]:
    """Delete all that a tenant has at the broker, and take it from the list. Returns refused changes of streams."""
    streams = await _all_streams(broker)
    own = _own_streams(broker.names, name, streams)
    consumers = [broker.names.consumer(priority, name) for priority in Priority]
    rest = {each: tenant for each, tenant in broker.tenants.items() if each != name}
    work = [stream for stream in streams if "_WORK_" in stream]
    await store_tenants(broker, TenantList(tenants=rest))  # workers leave its queues
    for stream in work:
        await broker.purge(stream, f"{broker.names.prefix}.work.*.*.*.{name}")
        for consumer in consumers:
            await broker.delete_consumer(stream, consumer)
    for stream in own:
        await broker.api_unless_gone(f"STREAM.DELETE.{stream}")
    return await apply_topology(broker, settings, await hosted_pipelines(broker))


async def _all_streams(broker: Broker) -> list[str]:
    return [str(info["config"]["name"]) for info in await listed(broker, "STREAM.LIST", "streams")]


def _own_streams(names: Names, tenant: str, streams: Sequence[str]) -> list[str]:
    stores = (f"OBJ_{names.blobs_of(tenant)}", f"OBJ_{names.uploads_of(tenant)}")
    kept = {names.results_of(tenant), names.cancel_of(tenant), *stores}
    return [stream for stream in streams if stream in kept or stream.endswith(f"@{tenant}")]
