"""The pipeline revisions a worker knows, each loaded once: spec, models and sessions, all through the broker."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

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


class Lines:
    """Loads and keeps lines by revision, and sessions by the hash of their model."""

    def __init__(self, broker: Broker, hosts: Hosts, cache: Path, device: Device) -> None:
        self._broker = broker
        self._device = device
        self._settings = broker.settings
        self._hosts = hosts
        self._cache = cache
        self._lines: dict[str, Line] = {}
        self._sessions: dict[str, Session] = {}
        self._loading = asyncio.Lock()
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
        for name, revision in (await pipeline_names(self._broker)).items():
            await self._warm(name, revision)
        del self._cold[""]
        async for key, told in self._broker.watch(self._broker.names.pipelines, "name.*"):
            await self._warm(key.removeprefix("name."), told.decode())

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
        line = self._lines.get(revision)
        if line is not None:
            return line
        async with self._loading:
            if revision not in self._lines:
                self._lines[revision] = await self._load(revision)
            return self._lines[revision]

    async def _load(self, revision: str) -> Line:
        spec = await load_pipeline(self._broker, revision)
        sessions = {}
        for stage in spec.infers:
            if self._hosts(stage):
                sessions[stage.model] = await self._session(spec.models[stage.model])
        return Line(spec, self._hosts, sessions, self._device)

    async def _session(self, sha256: str) -> Session:
        if sha256 not in self._sessions:
            card, model = await load_model(self._broker, sha256, self._cache)
            engine = None
            backend, on = self._settings.backend, self._device.card
            if backend != "onnxruntime" and on is None:
                tell(Event("no_card", f"model {card.name}: {backend} needs a card, the CPU serves it by ONNX Runtime"))
            elif backend != "onnxruntime" and on is not None and card.engine == "onnx":
                from workers.engines import engine_for

                here = on.facts
                engine = await engine_for(
                    self._broker, self._settings, self._cache, model, card, here.capability, here.name
                )
            self._sessions[sha256] = await asyncio.to_thread(_warmed, model, card, self._settings, self._device, engine)
        return self._sessions[sha256]

    def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions.values():
            session.close()


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
