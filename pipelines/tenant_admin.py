"""What a change of the tenants does at the broker: streams, consumers, and the list that the fleet follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.broker import Broker
from pipelines.job_records import job_key
from pipelines.old_jobs import copy_jobs, move_jobs
from pipelines.old_letters import move_letters
from pipelines.registry import hosted_pipelines
from pipelines.tenants import list_number, store_tenants
from pipelines.topology import Change, apply_topology, listed
from pipelines.values import decoded
from schemas.errors import UsageError
from schemas.jobs import Manifest, Priority
from schemas.settings import Settings
from schemas.subjects import Names, given_by
from schemas.tenants import MAIN, Tenant, TenantList


@dataclass(frozen=True, slots=True)
class TenantState:
    """What a tenant has at the broker: media that wait, messages of its jobs, dead letters, bytes that are stored, and
    its seconds of devices today.
    """

    media: int = 0
    media_bytes: int = 0
    queued: int = 0
    dead: int = 0
    stored_bytes: int = 0
    used_s: float = 0.0


async def set_tenants(broker: Broker, settings: Settings, tenants: Mapping[str, Tenant]) -> list[Change]:
    """Give the fleet these tenants, at a broker without accounts. Returns and raises as `prepare_tenants`, and as
    `store_tenants`.
    """
    number = await list_number(broker)
    refused = await prepare_tenants(broker, settings, tenants)
    await list_tenants(broker, tenants, number)
    return refused


async def list_tenants(broker: Broker, tenants: Mapping[str, Tenant], number: int) -> None:
    """Replace the list of this number by one of tenants that `prepare_tenants` has prepared; see `store_tenants`."""
    await store_tenants(broker, _list_of(broker, tenants), number)
    await move_jobs(broker)


async def prepare_tenants(broker: Broker, settings: Settings, tenants: Mapping[str, Tenant]) -> list[Change]:
    """Make the streams of tenants, before the fleet learns of them. Returns refused changes of streams.

    Raises UsageError when a tenant of the fleet is not among them, and when work of one that is new is not over, or
    before the first list that of any but `main`: its results would go elsewhere.
    """
    if missing := sorted(broker.tenants.keys() - tenants.keys()):
        what = f"the fleet has tenants that the file has not: {', '.join(missing)}"
        raise UsageError(what, f"name their file with --file; `rigflow tenants remove {missing[0]}` removes one")
    await _check_over(broker, tenants)
    broker.take_tenants(_list_of(broker, tenants))
    refused = await apply_topology(broker, settings, await hosted_pipelines(broker))
    await move_letters(broker)
    await copy_jobs(broker)
    return refused


def _list_of(broker: Broker, tenants: Mapping[str, Tenant]) -> TenantList:
    return TenantList(tenants=tenants, own_jobs=True, removed=broker.listed.removed - tenants.keys())


async def _check_over(broker: Broker, tenants: Mapping[str, Tenant]) -> None:
    """Raise UsageError when new tenants, or before the first list all but `main`, have jobs or media that wait."""
    names, first = broker.names, bool(tenants) and not broker.tenants
    for each in ("*",) if first else tenants.keys() - broker.tenants.keys():
        for key, body in (await broker.items(names.jobs, job_key(each, "*"))).items():
            manifest = decoded(Manifest, body, f"the manifest of job {key}")
            if manifest is not None and not manifest.state.ended and manifest.job.tenant != MAIN:
                what = f"job {manifest.job.id} of tenant {manifest.job.tenant} is not over"
                raise UsageError(what, "wait for its jobs or cancel them, then add the tenant")
    for stream in await _all_streams(broker):
        if first and stream.startswith(names.media_stream("")):
            state = (await broker.api(f"STREAM.INFO.{stream}", {"subjects_filter": ">"}))["state"]
            for subject, count in (state.get("subjects") or {}).items():
                tenant, pipeline, _ = given_by(subject)
                if tenant != MAIN:
                    what = f"{count} media of tenant {tenant} wait for pipeline {pipeline}"
                    raise UsageError(what, "wait until workers have taken them, then add the tenant")


async def state_of(broker: Broker, tenants: Sequence[str]) -> dict[str, TenantState]:
    """What each of these tenants has at the broker."""
    names, states = _with(broker.names, *tenants), {name: TenantState() for name in tenants}
    infos = {info["config"]["name"]: info["state"] for info in await listed(broker, "STREAM.LIST", "streams")}
    queued = await _queued(broker, names, [name for name in infos if _is_work(names, name)])
    for name in tenants:
        own = [state for stream, state in infos.items() if _is_media(names, name, stream)]
        stores = (names.results_of(name), f"OBJ_{names.blobs_of(name)}")
        states[name] = TenantState(
            media=sum(state["messages"] for state in own),
            media_bytes=sum(state["bytes"] for state in own),
            queued=queued.get(name, 0),
            dead=infos[names.dead_of(name)]["messages"] if names.dead_of(name) in infos else 0,
            stored_bytes=sum(infos[stream]["bytes"] for stream in stores if stream in infos),
            used_s=await broker.quotas.used_s(name),
        )
    return states


async def _queued(broker: Broker, names: Names, streams: Sequence[str]) -> dict[str, int]:
    """Messages in the queues of the stages by tenant."""
    counts: dict[str, int] = {}
    for stream in streams:
        for consumer in await listed(broker, f"CONSUMER.LIST.{stream}", "consumers"):
            tenant = names.listed_tenant(consumer["config"].get("filter_subject", ""))
            counts[tenant] = counts.get(tenant, 0) + consumer["num_pending"] + consumer["num_ack_pending"]
    return counts


async def check_removable(broker: Broker, name: str) -> None:
    """Raise UsageError when a tenant has work that is not done, or dead letters."""
    state = (await state_of(broker, [name]))[name]
    if state.media or state.queued:
        what = f"tenant {name} has work that is not done: {state.media} media, {state.queued} messages"
        raise UsageError(what, "wait for it, or drop it and all its results with --drop")
    if state.dead:
        hint = f"see `rigflow dead list --tenant {name}`; retry or drop them, or delete all with --drop"
        raise UsageError(f"tenant {name} has {state.dead} dead letters", hint)


async def remove_tenant(broker: Broker, settings: Settings, name: str) -> list[Change]:
    """Take a tenant from the fleet, at a broker without accounts. Returns as `delete_tenant`."""
    await unlist_tenant(broker, name)
    return await delete_tenant(broker, settings, name)


async def unlist_tenant(broker: Broker, name: str) -> None:
    """Take a tenant from the list: workers leave its queues."""
    rest = {each: tenant for each, tenant in broker.tenants.items() if each != name}
    listed = TenantList(tenants=rest, own_jobs=broker.names.own_jobs, removed=broker.listed.removed | {name})
    await store_tenants(broker, listed, await list_number(broker))


async def delete_tenant(broker: Broker, settings: Settings, name: str) -> list[Change]:
    """Delete the streams and stores, dead letters and messages in queues of a tenant that is not in the list.

    Its usage and API keys stay. Returns refused changes of streams.
    """
    streams, names = await _all_streams(broker), _with(broker.names, name)
    own = _own_streams(names, name, streams)
    consumers = [names.consumer(priority, name) for priority in Priority]
    work = [stream for stream in streams if _is_work(broker.names, stream)]
    for stream in work:
        await broker.purge(stream, f"{broker.names.prefix}.work.*.*.*.{name}")
        for consumer in consumers:
            await broker.delete_consumer(stream, consumer)
    for stream in own:
        await broker.api_unless_gone(f"STREAM.DELETE.{stream}")
    return await apply_topology(broker, settings, await hosted_pipelines(broker))


async def is_known(broker: Broker, name: str) -> bool:
    """Whether the broker has a tenant, or streams of one whose removal was interrupted."""
    return name in broker.tenants or bool(_own_streams(_with(broker.names, name), name, await _all_streams(broker)))


def _with(names: Names, *tenants: str) -> Names:
    """The names of these tenants, too: those of one that is not listed would be the shared ones."""
    return replace(names, tenants=names.tenants.union(tenants))


async def _all_streams(broker: Broker) -> list[str]:
    return [str(info["config"]["name"]) for info in await listed(broker, "STREAM.LIST", "streams")]


def _own_streams(names: Names, tenant: str, streams: Sequence[str]) -> list[str]:
    stores = (f"OBJ_{names.blobs_of(tenant)}", f"OBJ_{names.uploads_of(tenant)}")
    kept = {names.results_of(tenant), names.cancel_of(tenant), names.dead_of(tenant), *stores}
    kept |= {f"KV_{names.jobs_of(tenant)}"} if names.own_jobs else set()
    return [stream for stream in streams if stream in kept or _is_media(names, tenant, stream)]


def _is_work(names: Names, stream: str) -> bool:
    return stream.startswith(names.work_stream("", "")[:-1])


def _is_media(names: Names, tenant: str, stream: str) -> bool:
    """Whether a stream, of ours and not of a rigflow with another prefix, has the media of a listed tenant."""
    return stream.startswith(names.media_stream("")) and stream.endswith(f"@{tenant}")
