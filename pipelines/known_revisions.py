"""Pipelines that a process has read from the broker: a revision never changes, so each is read once."""

from collections import OrderedDict

from pipelines.broker import Broker
from pipelines.registry import load_pipeline
from schemas.pipeline import PipelineSpec

KEPT = 64  # the last ones that were used; a definition has a few kB


class KnownRevisions:
    """The revisions that `get` and `newest` gave last. Both raise what `load_pipeline` raises."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: OrderedDict[str, PipelineSpec] = OrderedDict()

    async def get(self, revision: str) -> PipelineSpec:
        """The pipeline of a revision that a job is pinned to."""
        return self._used(revision) or self._kept(await load_pipeline(self._broker, revision))

    async def newest(self, name: str) -> PipelineSpec:
        """The newest revision of a name: what it is now is asked each time."""
        revision = await self._broker.get(self._broker.names.pipelines, f"name.{name}") or b""
        known = self._used(revision.decode(errors="replace"))
        return known or self._kept(await load_pipeline(self._broker, name))

    def _used(self, revision: str) -> PipelineSpec | None:
        if revision in self._known:
            self._known.move_to_end(revision)
        return self._known.get(revision)

    def _kept(self, spec: PipelineSpec) -> PipelineSpec:
        self._known[spec.revision] = spec
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return spec
