"""Room in the stream of results: what stays there after its job is over goes first when others need the place."""

import time
from dataclasses import dataclass

from pipelines.blobs import discard_claims
from pipelines.broker import Broker
from pipelines.claims import claim_of
from schemas.subjects import HEADER_TYPE

LOOK_AGAIN_S = 10.0  # after a look that did not find enough: what fills the stream is not over


class Retention:
    """Deletes the oldest jobs that are over while results, or their claim checks, take more than half their limit.

    Those are finished files, kept for subscribers that come late, and jobs with failures, kept for a retry. The other
    half is for work that goes on; when that is full, publishers wait (law 4).
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._stream = broker.names.results_stream
        self._not_before_s = 0.0

    async def make(self) -> None:
        """Look, and delete if need be; costs two requests where there is room."""
        if time.monotonic() < self._not_before_s:
            return
        excess = _Bytes(await self._excess(self._stream), await self._excess(f"OBJ_{self._broker.names.blobs}"))
        if not excess.gone and not await self._free(excess):
            self._not_before_s = time.monotonic() + LOOK_AGAIN_S

    async def _excess(self, stream: str) -> int:
        """Bytes to free of a stream, so that it is not looked through again for each job; 0 where there is room."""
        limit = self._broker.settings.results_bytes
        stored = await self._broker.stream_bytes(stream)
        return stored - limit // 2 + limit // 8 if stored > limit // 2 else 0

    async def _free(self, excess: "_Bytes") -> bool:
        """Delete jobs that are over, oldest first; whether that was enough."""
        sizes: dict[str, _Bytes] = {}
        blobs: dict[str, list[str]] = {}
        async for stored in self._broker.read(self._stream):
            size = sizes.setdefault(stored.subject, _Bytes(0, 0))
            size.messages += len(stored.body)
            if blob := claim_of(stored.subject, stored.headers):
                size.blobs += int(stored.body) if stored.body.isdigit() else 0
                blobs.setdefault(stored.subject, []).append(blob)
            if stored.headers.get(HEADER_TYPE) != "done":
                continue
            await self._broker.purge(self._stream, stored.subject, stored.sequence)
            await discard_claims(self._broker, blobs.pop(stored.subject, []))
            excess.messages -= size.messages
            excess.blobs -= size.blobs
            del sizes[stored.subject]
            if excess.gone:
                return True
        return False


@dataclass(slots=True)
class _Bytes:
    """Bytes in the stream itself, and in the store of claim checks."""

    messages: int
    blobs: int

    @property
    def gone(self) -> bool:
        return self.messages <= 0 and self.blobs <= 0
