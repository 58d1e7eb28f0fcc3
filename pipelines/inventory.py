"""What the broker has of a job's results now: which segments are there, which failed, which are missing."""

from dataclasses import dataclass, field

from pipelines.broker import Broker, Stored
from pipelines.dead import load
from schemas.messages import Done, Failure, Manifest, Result, decode
from schemas.subjects import HEADER_TYPE


@dataclass(slots=True)
class _Seen:
    """Parts of one segment that are there, failures not counted."""

    parts: set[int] = field(default_factory=set)
    last: int | None = None

    @property
    def whole(self) -> bool:
        return self.last is not None and len(self.parts) == self.last + 1


@dataclass(slots=True)
class Inventory:
    """A job's results as they are now. `total` segments are known once the last one was published or is there."""

    manifest: Manifest
    done: Done | None = None
    files: list[Stored] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    total: int | None = None
    _segments: dict[int, _Seen] = field(default_factory=dict)

    @property
    def whole(self) -> list[int]:
        """Segments with all their results."""
        return sorted(number for number, seen in self._segments.items() if seen.whole)

    @property
    def failed(self) -> list[int]:
        """Segments that have a failure where a result is missing; -1 stands for the whole job."""
        numbers = {failure.key.segment for failure in self.failures if not self._made_good(failure)}
        return sorted(numbers - set(self.whole))

    @property
    def missing(self) -> list[int]:
        """Segments that are neither whole nor failed, as far as segments are known."""
        known = range(self.total if self.total is not None else max(self._segments, default=-1) + 1)
        return sorted(set(known) - set(self.whole) - set(self.failed))

    @property
    def complete(self) -> bool:
        """Whether nothing more will come, unless somebody retries what failed."""
        return -1 in self.failed or (self.total is not None and not self.missing)

    def add(self, message: Result | Failure) -> None:
        """Count a piece."""
        key = message.meta.key if isinstance(message, Result) else message.key
        if key.segment >= 0:
            self.total = key.segment + 1 if key.final else self.total
            seen = self._segments.setdefault(key.segment, _Seen())
            seen.last = key.part if key.last and isinstance(message, Result) else seen.last
        if isinstance(message, Failure):
            self.failures.append(message)
        else:
            self._segments[key.segment].parts.add(key.part)

    def _made_good(self, failure: Failure) -> bool:
        key = failure.key
        if key.segment < 0:
            return self.total is not None and len(self.whole) == self.total
        seen = self._segments[key.segment]
        return seen.whole or (not failure.whole and key.part in seen.parts)


async def take_inventory(broker: Broker, manifest: Manifest) -> Inventory:
    """Read through a job's results. Raises StoreError when one of them is gone."""
    inventory = Inventory(manifest, total=manifest.segments if manifest.state == "published" else None)
    async for stored in broker.read(broker.names.results_stream, broker.names.results(manifest.job)):
        kind = stored.headers.get(HEADER_TYPE, "")
        if kind == "file":
            inventory.files.append(stored)
        elif kind in ("part", "failure", "done"):
            message, _ = decode(await load(broker, stored))
            if isinstance(message, Done):
                inventory.done = message
            elif isinstance(message, Result | Failure):
                inventory.add(message)
    return inventory


def ranges(numbers: list[int]) -> str:
    """Ascending numbers for people: `3, 7-9`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
