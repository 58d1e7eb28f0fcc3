"""Engines at the broker: built once, used by every machine with such a GPU. `<key>` -> plan, sidecar as metadata."""

import hashlib

from pydantic import BaseModel, ValidationError

from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info, delete_blob, digest_of, get_blob
from pipelines.broker import Broker
from pipelines.values import decoded
from schemas.engine import EngineSpec
from schemas.errors import ModelError, UsageError

SIDECAR = "sidecar"  # metadata of an engine's object: its EngineSpec as json


class _Info(BaseModel):
    """What the store says of an object."""

    name: str = ""
    deleted: bool = False
    metadata: dict[str, str] = {}


async def push_engine(broker: Broker, spec: EngineSpec, plan: bytes, graph: bytes | None = None) -> bool:
    """Share an engine; False when the fleet has it already, byte for byte.

    An int8 engine is shared with the `graph` that it was compiled from: its answers are compared with that graph's.
    """
    bucket = broker.names.engines
    if graph and spec.basis.precision == "int8" and await blob_info(broker, bucket, _graph(spec)) is None:
        await put_blob(broker, bucket, graph, _graph(spec))
    info = await blob_info(broker, bucket, spec.key)
    if info is not None:
        if _sidecar(info.metadata, spec.key) == spec and info.digest == digest_of(plan):
            return False
        await delete_blob(broker, bucket, spec.key)
    await put_blob(broker, bucket, plan, spec.key, {SIDECAR: spec.model_dump_json()})
    return True


async def pull_engine(broker: Broker, key: str) -> tuple[EngineSpec, bytes, bytes]:
    """An engine of the fleet: sidecar, plan, and graph where one is shared, else empty.

    Raises UsageError: there is none; ModelError, StoreError: it is damaged there.
    """
    bucket = broker.names.engines
    info = await blob_info(broker, bucket, key)
    if info is None:
        raise UsageError(f"the fleet has no engine {key}", "see `rigflow engine list --nats URL`")
    spec = _sidecar(info.metadata, key)
    plan = bytes(await get_blob(broker, bucket, key))
    if spec is None or hashlib.sha256(plan).hexdigest() != spec.sha256:
        raise ModelError(f"engine {key} is damaged at the broker", "push it again from a machine that has it")
    if await blob_info(broker, bucket, _graph(spec)) is None:
        return spec, plan, b""
    graph = bytes(await get_blob(broker, bucket, _graph(spec)))
    if hashlib.sha256(graph).hexdigest() != spec.basis.graph_sha256:
        raise ModelError(f"the graph of engine {key} is damaged at the broker", "push it again")
    return spec, plan, graph


def _graph(spec: EngineSpec) -> str:
    return f"graph.{spec.basis.graph_sha256}"


async def fleet_engines(broker: Broker) -> list[EngineSpec]:
    """Sidecars of all engines that the fleet shares; damaged ones are left out."""
    bucket = broker.names.engines
    found = []
    async for stored in broker.read(f"OBJ_{bucket}", f"$O.{bucket}.M.>"):
        info = decoded(_Info, stored.body or b"{}", f"the description {stored.subject}")
        spec = None if info is None or info.deleted else _sidecar(info.metadata, info.name)
        if spec is not None:
            found.append(spec)
    return sorted(found, key=lambda spec: (spec.model, spec.basis.targets, spec.basis.precision))


def _sidecar(metadata: object, key: str) -> EngineSpec | None:
    """The sidecar of an object; None when it cannot be read, or belongs to another engine."""
    try:
        spec = EngineSpec.model_validate_json(metadata[SIDECAR])  # type: ignore[index]
    except (ValidationError, KeyError, TypeError):
        return None
    return spec if spec.key == key else None
