"""Deletes collected results while the stream of results fills, so that a job may be larger than the stream (law 4)."""

from pipelines.blobs import discard_claims
from pipelines.broker import Broker


class Relief:
    """The results that one collector has taken. While the stream is more than half full, they may be deleted."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.tenant = ""
        self._taken: list[tuple[int, str]] = []  # sequences, and claim checks
        self._unchecked_bytes = 0
        self._limit_bytes = 0

    async def is_due(self, sequence: int, blob: str, nbytes: int) -> bool:
        """Count a result that was taken; returns whether those taken have to be deleted now."""
        self._taken.append((sequence, blob))
        self._unchecked_bytes += nbytes
        names, limit_bytes = self._broker.names, self._broker.settings.results_bytes
        if self.tenant in names.tenants:  # the operator of the fleet decides how much it may store
            if not self._limit_bytes:
                info = await self._broker.api(f"STREAM.INFO.{names.results_of(self.tenant)}")
                self._limit_bytes = int(info["config"]["max_bytes"])
            limit_bytes = self._limit_bytes
        if self._unchecked_bytes < limit_bytes // 8:
            return False
        self._unchecked_bytes = 0
        streams = (names.results_of(self.tenant), f"OBJ_{names.blobs_of(self.tenant)}")
        return max([await self._broker.stream_bytes(stream) for stream in streams]) > limit_bytes // 2

    async def delete(self) -> None:
        """Delete all results that were taken, with their objects."""
        names = self._broker.names
        for sequence, _ in self._taken:
            await self._broker.delete_message(names.results_of(self.tenant), sequence)
        await discard_claims(self._broker, names.blobs_of(self.tenant), [blob for _, blob in self._taken])
        self._taken = []
