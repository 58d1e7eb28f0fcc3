"""Deletes collected results while the stream of results fills, so that a job may be larger than the stream (law 4)."""

from pipelines.blobs import discard_claims
from pipelines.broker import Broker


class Relief:
    """The results that one collector has taken. While the stream is more than half full, they may be deleted."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._taken: list[tuple[int, str]] = []  # sequences, and claim checks
        self._unchecked_bytes = 0

    async def is_due(self, sequence: int, blob: str, nbytes: int) -> bool:
        """Count a result that was taken; returns whether those taken have to be deleted now."""
        self._taken.append((sequence, blob))
        self._unchecked_bytes += nbytes
        limit_bytes = self._broker.settings.results_bytes
        if self._unchecked_bytes < limit_bytes // 8:
            return False
        self._unchecked_bytes = 0
        streams = (self._broker.names.results_stream, f"OBJ_{self._broker.names.blobs}")
        return max([await self._broker.stream_bytes(stream) for stream in streams]) > limit_bytes // 2

    async def delete(self) -> None:
        """Delete all results that were taken, with their objects."""
        for sequence, _ in self._taken:
            await self._broker.delete_message(self._broker.names.results_stream, sequence)
        await discard_claims(self._broker, [blob for _, blob in self._taken])
        self._taken = []
