"""The pipeline revisions a worker knows, each loaded once: spec, models and sessions, all through the broker."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engines.device import Device
from engines.inference.session import Session
from pipelines.broker import Broker
from pipelines.registry import load_model, load_pipeline, pipeline_names
from schemas.errors import RigflowError
from schemas.pipeline import ModelSpec
from schemas.settings import Settings
from workers.stages import Hosts, Line
from workers.telemetry import Event, tell

if TYPE_CHECKING:
    from workers.engines import Ready

T = TypeVar("T")


class Lines:
    """Loads and keeps lines by revision, and sessions by the hash of their model.

    Different ones load at the same time, so that one that takes minutes keeps no other waiting; all who want the same
    wait for one attempt, and share its failure.
    """

    def __init__(self, broker: Broker, hosts: Hosts, cache: Path, device: Device) -> None:
        self._broker = broker
        self._device = device
        self._settings = broker.settings
        self._hosts = hosts
        self._cache = cache
        self._lines: dict[str, Line] = {}
        self._sessions: dict[str, Session] = {}
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self._building = asyncio.Lock()
        self._warming = asyncio.Lock()
        self._cold = {"": "the broker has not told yet which pipelines there are"}

    @property
    def starting(self) -> bool:
        """Whether engines are still to be loaded for the first time."""
        return "" in self._cold

    @property
    def cold(self) -> str:
        """What is missing before every engine of the fleet's pipelines has answered its warm-up; empty: nothing."""
        return "; ".join(self._cold.values())

    async def warm_up(self) -> None:
        """Load what jobs will need before they come, now and whenever a pipeline is published."""
        names = await pipeline_names(self._broker)
        await asyncio.gather(*(self._warm(name, revision) for name, revision in names.items()))
        del self._cold[""]
        told = self._broker.watch(self._broker.names.pipelines, "name.*")
        await for_each(told, lambda news: self._warm(news[0].removeprefix("name."), news[1].decode()))

    async def _warm(self, name: str, revision: str) -> None:
        """Load one line; an engine that does not work is told, and its pipeline's jobs fail with the same words."""
        if revision in self._lines:
            self._cold.pop(name, None)
            return
        self._cold[name] = f"{name}: its engines are being loaded"
        try:
            await self.get(revision)
        except RigflowError as error:
            self._cold[name] = f"{name}: {error}"
            tell(Event("unready", f"pipeline {self._cold[name]}", facts={"why": str(error)}))
        else:
            del self._cold[name]

    async def get(self, revision: str) -> Line:
        """The line of a revision. Raises PipelineError, ModelError or BrokerError."""
        if revision not in self._lines:
            self._lines[revision] = await self._once(revision, lambda: self._load(revision))
        return self._lines[revision]

    async def _once(self, key: str, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `load` gives, or what one that goes on already gives: the answer is the same for the same key."""
        if key not in self._loading:
            loading = self._loading[key] = asyncio.create_task(load())
            loading.add_done_callback(lambda _: self._loading.pop(key))
        loaded: T = await asyncio.shield(self._loading[key])
        return loaded

    async def _load(self, revision: str) -> Line:
        spec = await load_pipeline(self._broker, revision)
        sessions = {}
        for stage in spec.infers:
            if self._hosts(stage):
                sha256 = spec.models[stage.model]
                if sha256 not in self._sessions:
                    self._sessions[sha256] = await self._once(sha256, functools.partial(self._session, sha256))
                sessions[stage.model] = self._sessions[sha256]
        return Line(spec, self._hosts, sessions, self._device)

    async def _session(self, sha256: str) -> Session:
        card, model = await load_model(self._broker, sha256, self._cache)
        engine = None
        backend, on = self._settings.backend, self._device.card
        if backend != "onnxruntime" and on is None:
            tell(Event("no_card", f"model {card.name}: {backend} needs a card, the CPU serves it by ONNX Runtime"))
        elif backend != "onnxruntime" and on is not None and card.engine == "onnx":
            from workers.engines import engine_for

            here, building = on.facts, self._building
            engine = await engine_for(
                self._broker, self._settings, self._cache, model, card, here.capability, here.name, building
            )
        # on a card one at a time: what is fastest there is found out by trying
        async with contextlib.nullcontext() if on is None else self._warming:
            return await asyncio.to_thread(_warmed, model, card, self._settings, self._device, engine)

    def close(self) -> None:
        """Close all sessions; what is being loaded is left alone, for the process ends."""
        for loading in self._loading.values():
            loading.cancel()
        for session in self._sessions.values():
            session.close()


async def for_each(things: AsyncIterable[T], do: Callable[[T], Coroutine[Any, Any, None]]) -> None:
    """Do something for each thing as it comes, all at the same time; the first failure ends that and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            async for thing in things:
                tasks.create_task(do(thing))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _warmed(model: bytes, card: ModelSpec, settings: Settings, device: Device, engine: "Ready | None") -> Session:
    """A session that has answered: one that cannot is not served. Raises ModelError, DeviceLost."""
    try:
        session = _open(model, card, settings, device, engine)
        try:
            session.warm_up()
        except BaseException:
            session.close()
            raise
        return session
    finally:
        device.leave()  # the thread that loads is not the one that computes


def _open(model: bytes, card: ModelSpec, settings: Settings, device: Device, engine: "Ready | None") -> Session:
    """A session of the card's engine; an engine is imported when it is needed, for its import costs half a second."""
    if card.engine == "paced":
        from engines.inference.paced import PacedSession

        return PacedSession(card, settings.pace_ms)
    if engine is not None and device.card is not None:
        from workers.engines import opened_on_card

        return opened_on_card(card, engine, device.card)
    return device.session(model, card)
