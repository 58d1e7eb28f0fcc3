"""Retention of results: deletes those of finished jobs when the stream of results fills up."""

import time
from dataclasses import dataclass

from pipelines.blobs import discard_claims
from pipelines.broker import Broker
from pipelines.claims import claim_of
from schemas.subjects import HEADER_TYPE

LOOK_AGAIN_S = 10.0  # pause after a call that could not free enough: unfinished jobs fill the stream


class Retention:
    """Deletes results of the oldest finished jobs while results or their claim checks take over half their limit.

    Those are finished files, kept for late subscribers, and results of jobs with failures, kept for a retry. The other
    half is for unfinished jobs; when that is full too, publishers wait (law 4).
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._not_before_s: dict[str, float] = {}  # of each stream of results

    async def free_space(self, tenant: str) -> None:
        """Delete results of finished jobs of a tenant's stream if needed. Costs two requests when nothing is to delete.

        The stream is its own for a listed tenant: what one tenant makes deletes nothing of another.
        """
        names = self._broker.names
        stream, bucket = names.results_of(tenant), names.blobs_of(tenant)
        if time.monotonic() < self._not_before_s.get(stream, 0.0):
            return
        excess = _Bytes(await self._excess(stream), await self._excess(f"OBJ_{bucket}"))
        if not excess.gone and not await self._free(stream, bucket, excess):
            self._not_before_s[stream] = time.monotonic() + LOOK_AGAIN_S

    async def _excess(self, stream: str) -> int:
        """Bytes to free in a stream: down to 3/8 of its limit, so that it is not read again for each job; or 0."""
        info = await self._broker.api(f"STREAM.INFO.{stream}")
        limit, stored = int(info["config"]["max_bytes"]), int(info["state"]["bytes"])
        return stored - limit // 2 + limit // 8 if 0 < limit // 2 < stored else 0

    async def _free(self, stream: str, bucket: str, excess: "_Bytes") -> bool:
        """Delete the results of finished jobs, oldest first; whether that freed enough."""
        sizes: dict[str, _Bytes] = {}
        blobs: dict[str, list[str]] = {}
        async for stored in self._broker.read(stream):
            size = sizes.setdefault(stored.subject, _Bytes(0, 0))
            size.messages += len(stored.body)
            if blob := claim_of(stored.subject, stored.headers):
                size.blobs += int(stored.body) if stored.body.isdigit() else 0
                blobs.setdefault(stored.subject, []).append(blob)
            if stored.headers.get(HEADER_TYPE) != "done":
                continue
            await self._broker.purge(stream, stored.subject, stored.sequence)
            await discard_claims(self._broker, bucket, blobs.pop(stored.subject, []))
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
