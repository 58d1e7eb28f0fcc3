"""What `rigflow engine` does and workers need: find a model, build, fetch and test its engines."""

import asyncio
from pathlib import Path

from engines.building.agreement import demand, described
from engines.building.engine import Recipe, agreement_of_graph, obtain
from engines.building.gpus import advised, target_of
from engines.building.store import EngineStore
from engines.content import Content
from engines.inference.trial import HINT
from engines.inference.weights import one_file
from engines.models.catalogue import builtin_model, builtin_models, load_model, own_model
from engines.own_process import in_own_process
from engines.ports import Compiler, LoadedEngine
from pipelines.broker import Broker
from pipelines.engines import fleet_engines, pull_engine, push_engine
from schemas.engine import EngineSpec, Precision
from schemas.errors import BrokerError, ModelError, StoreError, UsageError
from schemas.model import ModelSpec
from schemas.settings import Settings
from workers.telemetry import Event, log_event


def engine_store(cache: Path) -> EngineStore:
    """The store of engines on this machine."""
    return EngineStore(cache / "engines")


def find_model(name: str) -> tuple[ModelSpec, bytes]:
    """A model by the path of its ONNX file (its model card beside it), or by name: built in, or the user's own.

    Its weights are inside its ONNX file, as builders want it. `name@version` must be that version. Raises ModelError.
    """
    path = Path(name)
    if path.suffix != ".onnx":
        return named_model(name)
    spec, content = load_model(path)
    return spec, one_file(content, spec.name)


def named_model(name: str) -> tuple[ModelSpec, bytes]:
    """`find_model` by name alone. Raises ModelError."""
    bare, _, version = name.partition("@")
    if bare in builtin_models():
        return builtin_model(name)
    spec, content = own_model(bare)
    if version not in ("", spec.version):
        raise ModelError(f"model {bare} is here in version {spec.version}, not {version}", "import that version")
    return spec, one_file(content, spec.name)


async def engine_for(
    compiler: Compiler,
    broker: Broker,
    settings: Settings,
    cache: Path,
    content: Content,
    card: ModelSpec,
    capability: tuple[int, int],
    device: str,
    building: asyncio.Lock,
) -> LoadedEngine:
    """The engine for a worker's GPU: from this machine, else from the fleet, else built now and shared.

    It is built while `building` is held, because a builder takes gigabytes of memory. Engines that are damaged or were
    built by another version are skipped. Raises ModelError, UsageError, StoreError.
    """
    backend, target = compiler.name, target_of(capability)
    compiler.plans_for((target,))  # raises for a GPU that it cannot run on
    precision: Precision = advised(target) if settings.precision == "auto" else settings.precision
    warning = compiler.check_precision(target, precision, anyway=settings.precision != "auto")
    if warning:
        log_event(Event("slow_precision", f"model {card.name}: {warning}"))
    model = await asyncio.to_thread(one_file, content, card.name)
    store = engine_store(cache)
    here = compiler.version()
    timed_on = device if compiler.needs_gpu else ""
    for spec in store.suitable(card.sha256, backend, here, target, precision, timed_on):
        try:
            return await asyncio.to_thread(ready, store, spec, model)
        except ModelError as error:
            log_event(Event("engine_damaged", str(error)))
    for spec in await fleet_engines(broker):
        if not _runs(spec, card, backend, here, target, precision, timed_on):
            continue
        try:
            spec, plan, graph = await pull_engine(broker, spec.key)
        except (ModelError, UsageError, StoreError) as error:
            log_event(Event("engine_damaged", str(error)))
            continue
        await asyncio.to_thread(store.keep, spec, plan, graph)
        return await asyncio.to_thread(ready, store, spec, model)
    log_event(Event("engine_build", f"no engine of {card.name} for {target} in {precision}: it is built now"))
    async with building:
        spec = await asyncio.to_thread(_build, store, model, card, precision, backend, target, timed_on)
    built = await asyncio.to_thread(ready, store, spec, model)
    try:
        await push_engine(broker, built.spec, built.plan, store.graph(spec))
    except (BrokerError, StoreError) as error:
        log_event(Event("engine_not_shared", f"engine {spec.key} is used here, and is not shared: {error}"))
    return built


def ready(store: EngineStore, found: EngineSpec, model: bytes) -> LoadedEngine:
    """An engine of this machine with the model for its test. Raises ModelError when either is damaged."""
    spec, plan = store.load(found.key)
    if spec.basis.precision != "int8":
        return LoadedEngine(spec, plan, model)
    graph = store.graph(spec)
    if graph is None:
        raise ModelError(f"engine {spec.key}: the graph it was compiled from is not here to test it", "build it again")
    return LoadedEngine(spec, plan, graph)


def _build(
    store: EngineStore, model: bytes, card: ModelSpec, precision: Precision, backend: str, target: str, device: str
) -> EngineSpec:
    recipe = Recipe.make(card, model, precision, {})
    return obtain(store, recipe, recipe.basis(backend, (target,), device))[0]


def _runs(spec: EngineSpec, card: ModelSpec, backend: str, here: str, target: str, precision: str, device: str) -> bool:
    basis = spec.basis
    return (
        (basis.model_sha256, basis.backend, basis.version, basis.precision) == (card.sha256, backend, here, precision)
        and target in basis.targets
        and basis.device in ("", device)
    )


def check_engine(store: EngineStore, key: str, spec: ModelSpec | None, model: bytes) -> list[tuple[str, str]]:
    """What was checked of an engine here, and the outcome in words; `spec` None: its model is not here.

    Raises ModelError when anything is wrong.
    """
    engine, plan = store.load(key)
    reports = [("plan", f"{len(plan)} bytes, as built"), ("sidecar", f"key {engine.key} is that of what it depends on")]
    graph = store.graph(engine)
    if spec is None or graph is None:
        missing = "its model" if spec is None else "the graph it was compiled from"
        reports.append(("graph", f"not tested, for {missing} is not here"))
        return reports
    agreement, when = engine.agreement, ", at its build"
    if agreement.on == "pictures":
        given = (spec, graph, model, engine.basis.profiles, engine.basis.precision, [agreement.ranges])
        found = in_own_process(spec.name, "tests", HINT, agreement_of_graph, *given)
        agreement, when = demand(found, spec.name), ""
    bound = f"error {agreement.error:.2g} against ONNX Runtime on the CPU, allowed {agreement.tolerance:g}"
    return [*reports, ("graph", f"{bound}{when}, on {described(agreement)}")]
