"""What `rigflow engine` does and workers need: find a model, build, fetch and test its engines."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.building.agreement import compare, demand, probe_rows
from engines.building.builder import version
from engines.building.cards import advised, check_precision, plans_for, target_of
from engines.building.engine import PROBE_ROWS, Recipe, obtain
from engines.building.store import EngineStore
from engines.devices import Card, cards
from engines.inference.bindings import Backend
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.session import Session
from engines.models.catalogue import builtin_model, builtin_models, load_model, own_model
from pipelines.broker import Broker
from pipelines.engines import fleet_engines, pull_engine, push_engine
from pipelines.registry import kept_models
from schemas.engine import Agreement, EngineSpec, Precision
from schemas.errors import BrokerError, ModelError, ModelMissing, StoreError, UsageError
from schemas.pipeline import ModelSpec
from schemas.settings import Settings
from workers.telemetry import Event, tell


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine to be opened, and the ONNX file that it has to answer like."""

    spec: EngineSpec
    plan: bytes
    reference: bytes


def engine_store(cache: Path) -> EngineStore:
    """Where this machine keeps engines."""
    return EngineStore(cache / "engines")


def find_model(name: str, cache: Path) -> tuple[ModelSpec, bytes]:
    """A model by the path of its ONNX file (its card beside it), or by name: the user's own, imported, built in.

    Of several imported versions `name@version` names one. Raises ModelError, UsageError.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        card = path.with_suffix(".toml")
        return load_model(path, card if card.exists() else None)
    bare, _, wanted = name.partition("@")
    if not wanted:
        with suppress(ModelMissing):  # the one that pipelines run; workers may have kept older ones
            return own_model(bare)
    kept = [card for card in kept_models(cache) if card.name == bare and wanted in ("", card.version)]
    if len(kept) > 1:
        versions = ", ".join(f"{card.name}@{card.version} ({card.sha256[:8]})" for card in kept)
        raise UsageError(f"several models are called {name}: {versions}", "name one version, or give its file")
    if kept:
        return kept[0], (cache / f"{kept[0].sha256}.onnx").read_bytes()
    if bare in builtin_models():
        return builtin_model(name)
    known = ", ".join(sorted({card.name for card in kept_models(cache)} | set(builtin_models())))
    raise ModelError(f"no model {name}", f"there are {known}; `rigflow engine import MODEL.onnx` adds one")


async def engine_for(
    broker: Broker,
    settings: Settings,
    cache: Path,
    model: bytes,
    card: ModelSpec,
    capability: tuple[int, int],
    device: str,
) -> Ready:
    """The engine that a worker's card runs: kept here, or the fleet's, or built now and shared.

    What is damaged, or built by another version than the one here, is passed over. Raises ModelError, UsageError,
    StoreError.
    """
    backend, target = _backend(settings), target_of(capability)
    if backend == "tensorrt_rtx":
        plans_for((target,))  # refuses what it cannot run on
    precision: Precision = advised(target) if settings.precision == "auto" else settings.precision
    warning = check_precision(target, precision, backend, anyway=settings.precision != "auto")
    if warning:
        tell(Event("slow_precision", f"model {card.name}: {warning}"))
    store = engine_store(cache)
    here = version(backend)
    timed_on = device if backend == "tensorrt" else ""
    for spec in store.suitable(card.sha256, backend, here, target, precision, timed_on):
        try:
            return await asyncio.to_thread(ready, store, spec, model)
        except ModelError as error:
            tell(Event("engine_damaged", str(error)))
    for spec in await fleet_engines(broker):
        if not _runs(spec, card, backend, here, target, precision, timed_on):
            continue
        try:
            spec, plan, graph = await pull_engine(broker, spec.key)
        except (ModelError, UsageError, StoreError) as error:
            tell(Event("engine_damaged", str(error)))
            continue
        await asyncio.to_thread(store.keep, spec, plan, graph)
        return await asyncio.to_thread(ready, store, spec, model)
    tell(Event("engine_build", f"no engine of {card.name} for {target} in {precision}: it is built now"))
    spec = await asyncio.to_thread(_build, store, model, card, precision, backend, target, timed_on)
    built = await asyncio.to_thread(ready, store, spec, model)
    try:
        await push_engine(broker, built.spec, built.plan, store.graph(spec))
    except (BrokerError, StoreError) as error:
        tell(Event("engine_not_shared", f"engine {spec.key} serves here, and is not shared: {error}"))
    return built


def ready(store: EngineStore, found: EngineSpec, model: bytes) -> Ready:
    """An engine of this machine, whole, with what it is tested against. Raises ModelError when either is damaged."""
    spec, plan = store.load(found.key)
    if spec.basis.precision != "int8":
        return Ready(spec, plan, model)
    graph = store.graph(spec)
    if graph is None:
        raise ModelError(f"engine {spec.key}: the graph it was compiled from is not here to test it", "build it again")
    return Ready(spec, plan, graph)


def _build(
    store: EngineStore, model: bytes, card: ModelSpec, precision: Precision, backend: Backend, target: str, device: str
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


def _backend(settings: Settings) -> Backend:
    if settings.backend == "onnxruntime":
        raise UsageError("ONNX Runtime needs no engine", "set `backend` to tensorrt or tensorrt_rtx")
    return settings.backend


def card_here() -> Card:
    """The first card that this process may use. Raises UsageError when there is none."""
    found = cards()
    if not found:
        raise UsageError("no card is here to run engines on", "ONNX Runtime on the CPU needs none")
    return found[0]


def primary_context() -> Callable[[], None]:
    """Opens the first card; what is returned makes its primary context the calling thread's, once a thread.

    Raises UsageError without pycuda or a driver.
    """
    try:
        from pycuda import driver
    except ImportError as error:
        raise UsageError(f"pycuda cannot be imported: {error}", "pip install rigflow[gpu]") from error
    driver.init()
    context = driver.Device(0).retain_primary_context()
    here = threading.local()

    def enter() -> None:
        if not getattr(here, "inside", False):
            context.push()
            here.inside = True

    return enter


def card_memory() -> Callable[[], int]:
    """Bytes of the first card that are in use, by whomever."""
    enter = primary_context()

    def used() -> int:
        from pycuda import driver

        enter()
        free, total = driver.mem_get_info()
        return int(total - free)

    return used


def opened_on_card(spec: ModelSpec, ready: Ready, enter: Callable[[], None]) -> Session:
    """An engine on a card, after it answered as its reference in ONNX Runtime on the CPU does.

    Raises ModelError when it does not: nothing serves it then.
    """
    from engines.inference.tensorrt import TensorRtSession

    session = TensorRtSession(ready.plan, spec, ready.spec, enter)
    try:
        demand(agreement_on(session, ready.reference, ready.spec, ready.spec.basis.backend), spec.name)
    except BaseException:
        session.close()
        raise
    return session


def agreement_on(session: Session, model: bytes, engine: EngineSpec, where: str) -> Agreement:
    """How far a session is from `model` in ONNX Runtime on the CPU, over seeded rows of the engine's shapes."""
    reference = OnnxRuntimeSession(model, session.spec, simulate=True)
    try:
        inputs = probe_rows(session.spec, engine.basis.profiles, min(PROBE_ROWS, engine.rows))
        return compare(session, reference, inputs, engine.basis.precision, where)
    finally:
        reference.close()


def check_engine(store: EngineStore, key: str, spec: ModelSpec | None, model: bytes) -> list[tuple[str, str]]:
    """What was checked of an engine here, and the outcome in words; `spec` None: its model is not here.

    Raises ModelError when anything is wrong.
    """
    engine, plan = store.load(key)
    said = [("plan", f"{len(plan)} bytes, as built"), ("sidecar", f"key {engine.key} is that of what it depends on")]
    graph = store.graph(engine)
    if spec is None or graph is None:
        missing = "its model" if spec is None else "the graph it was compiled from"
        said.append(("graph", f"not tested, for {missing} is not here"))
        return said
    agreement, when = engine.agreement, ", at its build, on the calibration's media"
    if engine.basis.precision != "int8":  # noise lies outside of what int8 was calibrated for
        session = OnnxRuntimeSession(graph, spec)
        try:
            agreement, when = demand(agreement_on(session, model, engine, "graph"), spec.name), ""
        finally:
            session.close()
    bound = f"error {agreement.error:.2g} against ONNX Runtime on the CPU, allowed {agreement.tolerance:g}"
    return [*said, ("graph", bound + when)]
