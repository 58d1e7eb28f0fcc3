"""Pipelines that a process has read from the broker: a revision never changes, so each is read once."""

from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pipelines import revisions
from pipelines.broker import Broker
from pipelines.registry import load_newest, load_pipeline
from schemas.declared import is_token
from schemas.pipeline import PipelineSpec

KEPT = 64  # the last ones that were used; a definition has a few kB


@dataclass(slots=True)
class _Known:
    spec: PipelineSpec
    fresh_until_s: float = 0.0  # by the clock: until then the broker keeps it for hours


class KnownRevisions:
    """The revisions that `get` and `newest` gave last. Both raise what `load_pipeline` raises."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: OrderedDict[str, _Known] = OrderedDict()

    @classmethod
    def of(cls, broker: Broker) -> "KnownRevisions":
        """Those of all that use a connection."""
        return _of_connections.setdefault(broker, cls(broker))

    async def get(self, revision: str) -> PipelineSpec:
        """The pipeline of a revision that a job is pinned to."""
        return self._used(revision) or self._kept(await load_pipeline(self._broker, revision))

    async def newest(self, name: str) -> PipelineSpec:
        """The newest revision of a name, or the revision of that name: what it is now is asked each time."""
        entry = await self._broker.get(self._broker.names.pipelines, f"name.{name}") if is_token(name) else None
        if entry is None:
            return self._kept(await load_pipeline(self._broker, name))
        known = self._used(entry.decode(errors="replace"))
        return known or self._kept(await load_newest(self._broker, name, entry))

    async def keep(self, spec: PipelineSpec) -> None:
        """Have the broker keep a revision that `newest` gave just now: `revisions.keep`, at most once in hours."""
        known = self._known.get(spec.revision)
        if known is None or known.fresh_until_s < self._broker.now_s():
            await revisions.keep(self._broker, spec)
            self._kept(spec, self._broker.now_s() + revisions.FRESH_S)

    def _used(self, revision: str) -> PipelineSpec | None:
        known = self._known.get(revision)
        if known is None:
            return None
        self._known.move_to_end(revision)
        return known.spec

    def _kept(self, spec: PipelineSpec, fresh_until_s: float = 0.0) -> PipelineSpec:
        self._known[spec.revision] = _Known(spec, fresh_until_s)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return spec


_of_connections: WeakKeyDictionary[Broker, KnownRevisions] = WeakKeyDictionary()
