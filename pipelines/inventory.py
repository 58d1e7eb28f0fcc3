"""The results of a job that the broker has now: which segments are there, which failed, which are missing."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipelines.broker import Broker, Stored
from pipelines.reasons import REASONS, SPANS, describe, failed_items, joined, nothing_whole, shortened
from pipelines.result_index import follow_result_index, result_of
from schemas.errors import MessageError, StoreError
from schemas.jobs import JobState, Manifest
from schemas.parts import PartHeader, PartMeta
from schemas.results import Done, Failure, Result
from schemas.subjects import HEADER_TYPE

FAILURES = 1000  # failures that an inventory holds: a job may have more than fit into the memory
DONE_FILES = 100  # names of files in a Done
BODIES = 64  # bodies of parts that are read for their texts: those of many parts may all have one note
MISSING = 100_000  # segments listed as missing, at most: a forged number must not fill the memory


@dataclass(slots=True)
class _Seen:
    """Parts of one segment that are there, and those that have a failure instead."""

    parts: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    last: int | None = None
    failed_entirely: bool = False
    failures: int = 0

    @property
    def complete(self) -> bool:
        return self.last is not None and len(self.parts) == self.last + 1

    @property
    def settled(self) -> bool:
        return self.failed_entirely or (self.last is not None and len(self.parts | self.failed) == self.last + 1)


@dataclass(slots=True)
class Inventory:
    """A job's results as they are now. `total` segments are known once the last one was published or is there.

    `files` are without their bodies. `failures` are the first `FAILURES` of them. `failed_items` counts the items
    without a result of the parts that are there, and `item_reasons` says why of the first `REASONS`; `notes` are as
    many of their notes. `done` is at `done_seq`.
    """

    manifest: Manifest
    done: Done | None = None
    done_seq: int = 0
    files: list[Stored] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    total: int | None = None
    given_up: bool = False
    frames: int = 0
    lost: int = 0
    unseen: int = 0
    failed_items: int = 0
    item_reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    computed_s: float = 0.0  # of the parts that say it
    _segments: dict[int, _Seen] = field(default_factory=dict)
    _final: int | None = None  # the last segment of the media, once something of it is there
    _failures_of_job: int = 0
    _bodies: int = 0

    @property
    def complete_segments(self) -> list[int]:
        """Segments with all their results."""
        return sorted(number for number, seen in self._segments.items() if seen.complete)

    @property
    def failed(self) -> list[int]:
        """Segments that are settled and have failures in place of results."""
        return sorted(number for number, seen in self._segments.items() if seen.settled and not seen.complete)

    @property
    def missing(self) -> list[int]:
        """Known segments that are not settled; the first `MISSING` of them."""
        known = range(self.total if self.total is not None else max(self._segments, default=-1) + 1)
        settled = {*self.complete_segments, *self.failed}
        return list(islice((number for number in known if number not in settled), MISSING))

    @property
    def complete(self) -> bool:
        """Whether all results or failures are there. Only a retry of a failure can add more."""
        return self.given_up or (self.total is not None and not self.missing and not self.awaits_gathering)

    @property
    def awaits_gathering(self) -> bool:
        """Whether all parts of the media are there, and no result of the stage that takes them all as one part.

        A collector has that stage run, unless something of the media failed.
        """
        of_media = self.manifest.gathers and self._final is not None and not self.missing
        if not of_media or self.given_up or self.failed or self.failed_items:
            return False
        gathered = self._segments.get((self._final or 0) + 1)
        return gathered is None or not gathered.settled

    @property
    def over(self) -> bool:
        """Whether the job has ended: it is `complete`, and if a worker collects it, its Done is there."""
        return self.done is not None or (self.complete and not self.manifest.hosted)

    def add(self, message: Result | Failure) -> None:
        """Count a piece."""
        if isinstance(message, Result):
            self.add_part(PartHeader.of(message.meta), message.meta)
            return
        key = message.key
        if len(self.failures) < FAILURES:
            self.failures.append(message)
        if key.segment < 0:
            self.given_up = True
            self._failures_of_job += 1
            return
        seen = self._segment(key.segment, key.final)
        seen.failures += 1
        if message.entire_segment:
            seen.failed_entirely = True
            return
        seen.failed.add(key.part)
        if key.last:
            seen.last = key.part

    def add_part(self, header: PartHeader, meta: PartMeta | None = None) -> None:
        """Count a result by its headers; `meta`, from its body, says why items of it failed, and has its notes."""
        seen = self._segment(header.segment, header.final)
        if header.part not in seen.parts:
            self.frames += header.frames
            self.lost += header.lost
            self.unseen += header.unseen
            self.failed_items += header.failed
            self.computed_s += header.computed_s
            if meta is not None:
                self._add_texts(meta)
        seen.parts.add(header.part)
        if header.last:
            seen.last = header.part

    def lacks_texts_of(self, header: PartHeader) -> bool:
        """Whether the body of a part is to be read for its texts: they may belong among the first `REASONS`."""
        wanted = (header.failed, self.item_reasons), (header.notes, self.notes)
        return self._bodies < BODIES and any(there and len(texts) < REASONS for there, texts in wanted)

    def _add_texts(self, meta: PartMeta) -> None:
        self._bodies += 1
        self.item_reasons = [*self.item_reasons, *failed_items(meta)][:REASONS]
        self.notes = list(dict.fromkeys([*self.notes, *map(shortened, meta.notes)]))[:REASONS]

    def _segment(self, segment: int, final: bool) -> _Seen:
        if final:
            self.total = segment + 1
            self._final = segment if self._final is None else min(self._final, segment)
        return self._segments.setdefault(segment, _Seen())

    @property
    def open_failures(self) -> list[Failure]:
        """Those of `failures` that no results have made good."""
        return [
            failure
            for failure in self.failures
            if failure.key.segment not in self._segments or not self._segments[failure.key.segment].complete
        ]

    @property
    def progress(self) -> Manifest:
        """The job's manifest with these counts. A job that a worker collects is over with its Done, after its files."""
        known, failures = self.manifest, self.open_failures
        if known.state.ended:
            return known
        if self.done is not None:
            return known.model_copy(update=ended(self.done))
        count = self._failures_of_job + sum(each.failures for each in self._segments.values() if not each.complete)
        count += self.failed_items
        reasons = [*map(describe, failures[:REASONS]), *self.item_reasons]
        if self.over and not count and (nothing := nothing_whole(self.frames, self.unseen, self.lost)):
            count, reasons = 1, [nothing]
        seen = {
            "segments_done": max(known.segments_done, len(self.complete_segments)),
            "frames": max(known.frames, self.frames),
            "lost": max(known.lost, self.lost),
            "failures": count,
            "reasons": tuple(reasons[:REASONS]),
            "notes": tuple(self.notes),
            "missing": joined([(failure.start_s, failure.end_s) for failure in failures])[:SPANS],
        }
        if self.over:
            seen["state"] = JobState.at_end(count)
        return known.model_copy(update=seen)


def ended(done: Done) -> dict[str, Any]:
    """Fields of the manifest of a job that is over."""
    fields = {
        "state": done.state,
        "frames": done.frames,
        "lost": done.lost,
        "failures": done.failed,
        "reasons": done.failures[:REASONS],
        "missing": done.missing[:SPANS],
        "notes": done.notes[:REASONS],
        "files": done.files,
        "computed_s": done.computed_s,
        "tokens": done.tokens,
    }
    known = {"segments": done.segments, "total": done.segments, "segments_done": done.segments}
    duration = {"duration_s": done.duration_s} if done.duration_s else {}
    return fields | (known if done.segments else {}) | duration


async def take_inventory(broker: Broker, manifest: Manifest) -> Inventory:
    """The results of a job. Raises StoreError when the object of one is gone."""
    [inventory] = await take_inventories(broker, [manifest])
    return inventory


async def take_inventories(broker: Broker, manifests: Sequence[Manifest]) -> list[Inventory]:
    """The results of each of these jobs."""
    async with aclosing(follow_inventories(broker, manifests)) as following:
        return await anext(following)


async def follow_inventories(broker: Broker, manifests: Sequence[Manifest]) -> AsyncGenerator[list[Inventory], None]:
    """The results of all these jobs now, then those of one job whenever they change, for ever."""
    inventories = [Inventory(manifest, total=manifest.total) for manifest in manifests]
    by_subject = {broker.names.results(taken.manifest.job): taken for taken in inventories}
    if not by_subject:
        yield inventories
        return
    caught_up = False  # before that, a failure may be one that a result has replaced
    async with aclosing(follow_result_index(broker, list(by_subject))) as following:
        async for stored in following:
            if stored is None:
                caught_up = True
                yield inventories
            else:
                await _count(broker, by_subject[stored.subject], stored)
                if caught_up:
                    yield [by_subject[stored.subject]]


async def _count(broker: Broker, inventory: Inventory, stored: Stored) -> None:
    kind, job = stored.headers.get(HEADER_TYPE, ""), inventory.manifest.job
    if kind == "file":
        inventory.files.append(stored)
    elif kind == "part":
        await count_part(broker, inventory, stored)
    elif kind in ("failure", "done"):
        message = await result_of(broker, stored)
        if isinstance(message, Done) and message.job.generation == job.generation:
            inventory.done, inventory.done_seq = message, stored.sequence
        elif isinstance(message, Failure) and message.key.job.generation == job.generation:
            inventory.add(message)


async def count_part(broker: Broker, inventory: Inventory, stored: Stored) -> PartHeader | None:
    """Count the result of a part by its headers; None if it is of another generation, or its headers are damaged.

    Only of the first parts with failed items or notes the body is read, which has their texts; of `BODIES` at most.
    """
    try:
        header = PartHeader.parse(stored.headers)
    except MessageError:
        return None
    if header.generation != inventory.manifest.job.generation:
        return None
    inventory.add_part(header, await _meta_of(broker, stored) if inventory.lacks_texts_of(header) else None)
    return header


async def _meta_of(broker: Broker, stored: Stored) -> PartMeta | None:
    try:
        message = await result_of(broker, stored)
    except StoreError:
        return None
    return message.meta if isinstance(message, Result) else None
