"""Opens the models of a worker: files from the broker, the backend that suits its device, an engine, the warm-up."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engines.backends.choice import EVERYWHERE, backend_of, check_backend
from engines.content import Content
from engines.device.host import Host
from engines.ports import Backend, Compiler, Device, LoadedEngine, Session
from engines.registry import load
from engines.tunable import Tunable
from pipelines.broker import Broker
from pipelines.models import ModelCache
from schemas.errors import ModelError, PluginMissing
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from workers.computing import ComputingThread
from workers.telemetry import Event, log_event
from workers.tuning import ModelTuning


class ModelPlace(NamedTuple):
    """A model, by its identity, and whether it runs on the host's cores beside the worker's device."""

    identity: str
    on_host: bool = False


class SessionOpener:
    """Makes sessions of models, which it names by their identity.

    `quarantine` has models that must not be loaded, and why; `load_alone`: load one model at a time. `on_loading` is
    called before and after each load, and `loading` has the models that are being loaded.
    """

    def __init__(
        self,
        broker: Broker,
        cache: Path,
        device: Device,
        computing: ComputingThread,
        quarantine: Mapping[str, str],
        load_alone: bool,
    ) -> None:
        self._broker = broker
        self._device, self._host = device, Host(broker.settings)
        self._computing = computing
        self._settings = broker.settings
        self._cache = cache
        self.models = ModelCache(broker, cache / "models")
        self.tuning = ModelTuning(broker, cache, device)
        self._building = asyncio.Lock()
        self._quarantine = dict(quarantine)
        # on a GPU one at a time: loading measures which algorithm is fastest there
        alone = load_alone or device.gpu is not None
        self._turn: contextlib.AbstractAsyncContextManager[Any] = asyncio.Lock() if alone else contextlib.nullcontext()
        self.loading: list[str] = []
        self.on_loading: Callable[[], None] = lambda: None

    async def open(self, place: ModelPlace) -> Session:
        """Load a model from the broker's store; `close` gives it back.

        Raises ModelError, UsageError, StoreError, BrokerError, DeviceLost.
        """
        identity, device = place.identity, self._host if place.on_host else self._device
        if why := self._quarantine.get(identity):
            raise ModelError(why, "publish its pipeline with another model, or withdraw it")
        card, model = await self.models.load(identity)
        try:
            backend = await asyncio.to_thread(self._host_backend if place.on_host else self._backend, card)
            engine = await self._engine(backend, model, card) if isinstance(backend, Compiler) else None
            return await self._open_within_deadline(identity, model, card, backend, engine, device)
        except BaseException:
            self.models.release(identity)
            raise

    def _backend(self, card: ModelSpec) -> Backend:
        """The backend that runs a model here. Raises ModelError, PluginMissing."""
        check_backend(card, self._settings)
        wanted = backend_of(card, self._settings)
        why = wanted.refuses(self._device)
        if why and card.backend:
            raise PluginMissing(f"model {card.name}: {why}", "run its stage on another worker")
        if why:
            log_event(Event("no_gpu", f"model {card.name}: {why}, {EVERYWHERE} serves it on this device"))
            instead: Backend = load("backends", EVERYWHERE)(self._settings)
            return instead
        return wanted

    def _host_backend(self, card: ModelSpec) -> Backend:
        """The backend that runs a model on the host's cores. Raises ModelError, PluginMissing."""
        settings = self._settings.model_copy(update={"backend": EVERYWHERE})
        check_backend(card, settings)
        text = f"model {card.name} runs on the host's cores, beside {self._device.name}"
        log_event(Event("on_host", text, logging.INFO, {"model": card.name}))
        return backend_of(card, settings)

    async def _engine(self, compiler: Compiler, model: Content, card: ModelSpec) -> LoadedEngine:
        """The engine of a model for this worker's GPU. Raises ModelError, UsageError, StoreError."""
        from workers.engines import engine_for  # it takes half a second

        here, settings = self._device.gpu.facts, self._settings
        given = (model, card, here.capability, here.name, self._building)
        return await engine_for(compiler, self._broker, settings, self._cache, *given)

    async def _open_within_deadline(
        self,
        identity: str,
        model: Content,
        card: ModelSpec,
        backend: Backend,
        engine: LoadedEngine | None,
        device: Device,
    ) -> Session:
        deadline_s = self._settings.work_deadline_s
        async with self._turn:
            self.loading.append(identity)
            self.on_loading()  # before the load, which may crash this process
            try:
                async with asyncio.timeout(deadline_s):
                    options = None
                    if isinstance(backend, Tunable) and device is self._device:
                        options = await self.tuning.options(card, model, backend)
                    return await asyncio.to_thread(_warmed, model, card, backend, device, engine, options)
            except TimeoutError:
                why = f"model {card.name}: its warm-up did not end within {deadline_s:.0f} s"
                self._quarantine[identity] = why  # its thread still runs, so this process does not try again
                raise ModelError(why, "use a smaller model, or raise `work_deadline_s`") from None
            finally:
                self.loading.remove(identity)
                self.on_loading()

    async def close(self, session: Session) -> None:
        """Close a session on the computing thread: what one of the device made there no other thread may free."""
        await self._computing.run(session.close)


def _opened(model: Content, card: ModelSpec, backend: Tunable, device: Device, options: ComputeOptions) -> Session:
    """Open a session with these options; without a CUDA graph if it cannot be recorded. Answers have the same bits."""
    try:
        return backend.open_with(model, card, device, options)
    except ModelError as error:
        if not options.graph:
            raise
        session = backend.open_with(model, card, device, options.model_copy(update={"graph": False}))
        text = f"model {card.name} is computed without a CUDA graph on {device.name}: {error.what}"
        log_event(Event("no_graph", text, facts={"model": card.name}))
        return session


def _warmed(
    model: Content,
    card: ModelSpec,
    backend: Backend,
    device: Device,
    engine: LoadedEngine | None,
    options: ComputeOptions | None,
) -> Session:
    """Open a session and run its warm-up. Raises ModelError, DeviceLost, PluginMissing."""
    try:
        if isinstance(backend, Tunable) and options is not None:
            session = _opened(model, card, backend, device, options)
        else:
            session = backend.open(model, card, device, engine)
        try:
            session.warm_up()
        except BaseException:
            session.close()
            raise
        return session
    except ImportError as error:
        what = f"model {card.name}: a package that its backend needs cannot be imported here: {error}"
        raise PluginMissing(what, "install it, and start the worker again") from error
    finally:
        device.leave()  # the thread that loads is not the one that computes
