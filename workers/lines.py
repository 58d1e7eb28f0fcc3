"""The pipeline revisions a worker knows, each loaded once: spec, models and sessions, all through the broker."""

import asyncio
from pathlib import Path

from engines.inference.session import Session
from pipelines.broker import Broker
from pipelines.registry import load_model, load_pipeline
from schemas.pipeline import ModelSpec
from schemas.settings import Settings
from workers.stages import Hosts, Line


class Lines:
    """Loads and keeps lines by revision, and sessions by the hash of their model."""

    def __init__(self, broker: Broker, hosts: Hosts, cache: Path) -> None:
        self._broker = broker
        self._settings = broker.settings
        self._hosts = hosts
        self._cache = cache
        self._lines: dict[str, Line] = {}
        self._sessions: dict[str, Session] = {}
        self._loading = asyncio.Lock()

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
        return Line(spec, self._hosts, sessions)

    async def _session(self, sha256: str) -> Session:
        if sha256 not in self._sessions:
            card, model = await load_model(self._broker, sha256, self._cache)
            self._sessions[sha256] = await asyncio.to_thread(_open, model, card, self._settings)
        return self._sessions[sha256]

    def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions.values():
            session.close()


def _open(model: bytes, card: ModelSpec, settings: Settings) -> Session:
    """A session of the card's engine; an engine is imported when it is needed, for its import costs half a second."""
    if card.engine == "paced":
        from engines.inference.paced import PacedSession

        return PacedSession(card, settings.pace_ms)
    from engines.inference.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(model, card)
