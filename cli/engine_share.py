"""`rigflow engine push` and `pull`: engines built once, for every machine of a fleet."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from cli.answers import answers
from cli.interrupts import run_async
from cli.options import Json, on_fleet
from schemas.errors import ExitCode, UsageError
from schemas.text import size

if TYPE_CHECKING:
    from engines.building.store import EngineStore
    from pipelines.broker import Broker
    from schemas.engine import EngineSpec
    from schemas.settings import Settings

T = TypeVar("T")
Keys: TypeAlias = Annotated[
    list[str] | None, typer.Argument(help="Beginnings of engines' keys. Default: all.", metavar="KEY...")
]


@on_fleet
def push(
    keys: Keys = None,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Share engines of this machine with a fleet.

    Every machine with such a GPU then takes them from there.

    Example: rigflow engine push 6c5cb62260de --nats nats://rig1:4222
    """
    from pipelines.audit import audit
    from pipelines.engines import push_engine
    from pipelines.topology import ensure_topology

    store = store_of(settings)
    specs = [store.find(key) for key in keys] if keys else store.listed()[0]

    async def pushing(broker: "Broker") -> None:
        await ensure_topology(broker, settings, [])
        for spec in specs:
            await audit(broker, "engine-pushed", spec.model, key=spec.key)
            new = await push_engine(broker, *store.load(spec.key), store.graph(spec))
            done = "shared" if new else "the fleet has it already"
            answer(f"{spec.key[:12]}  {spec.model}  {done}", key=spec.key, model=spec.model, new=new)

    with answers(as_json) as answer:
        at_fleet(settings, pushing)
    return ExitCode.OK


@on_fleet
def pull(
    keys: Keys = None,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Fetch engines that a fleet shares.

    Workers do so by themselves.

    Example: rigflow engine pull 6c5cb62260de --nats nats://rig1:4222
    """
    from pipelines.engines import fleet_engines, pull_engine

    store = store_of(settings)

    async def pulling(broker: "Broker") -> None:
        specs = await fleet_engines(broker)
        for key in keys or [spec.key for spec in specs]:
            found = [spec.key for spec in specs if spec.key.startswith(key)]
            if len(found) != 1:
                raise UsageError(
                    f"the fleet has {len(found) or 'no'} engine{'s'[: len(found)]} {key}",
                    "see `rigflow engine list --nats URL`",
                )
            if store.is_intact(found[0]):
                answer(f"{found[0][:12]}  is here already", key=found[0], new=False)
                continue
            spec, plan, graph = await pull_engine(broker, found[0])
            store.keep(spec, plan, graph)
            about = f"{spec.model}  {gpus_of(spec)}  {size(spec.size_bytes)}"
            answer(f"{spec.key[:12]}  {about}", key=spec.key, model=spec.model, new=True)

    with answers(as_json) as answer:
        at_fleet(settings, pulling)
    return ExitCode.OK


def gpus_of(spec: "EngineSpec") -> str:
    """The kinds of GPUs of an engine, in words."""
    return " ".join(spec.basis.targets)


def store_of(settings: "Settings") -> "EngineStore":
    """The engines of this machine."""
    from workers.engines import engine_store

    return engine_store(settings.cache_folder)


def at_fleet(settings: "Settings", ask: "Callable[[Broker], Awaitable[T]]") -> T:
    """What a fleet's broker answers."""
    from pipelines.broker import Broker

    async def asking() -> T:
        async with Broker.connected(settings, name="rigflow-engine") as broker:
            return await ask(broker)

    return run_async(asking())
