"""One job while it is collected: its counts, its files, and the progress in its manifest."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engines.encoding import Assembler, Format, Lengthy, Origin, Traced
from engines.files import delete_files
from engines.gathering import Gathering
from engines.part import encode_part, unpack_arrays, unpack_values
from pipelines.blobs import discard_claims
from pipelines.broker import Broker
from pipelines.in_thread import in_thread
from pipelines.inventory import DONE_FILES
from pipelines.job_records import JobRecord
from pipelines.order import JobOrder
from pipelines.reasons import DONE_REASONS, Reasons, describe, failed_items, nothing_whole, shortened
from pipelines.spool import Piece
from pipelines.tracing import place_of
from schemas.base import Message
from schemas.errors import OutputError, RigflowError
from schemas.jobs import JobRef, Manifest
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from schemas.results import Done, Failure, Result
from schemas.segments import Fragment
from schemas.subjects import HEADER_AGAIN
from schemas.text import count

NAMED_OUTPUTS = 10  # in notes of values that are not finite

OnPart = Callable[[str, PartMeta], None]
OnShare = Callable[[str, float], None]  # how much of a job's files is finished, 0 to 1, where that takes long
Deliver = Callable[[JobRef, list[Path]], Awaitable[None]]  # called with the finished files, before Done is published
Compare = Callable[[str, list[Path]], Sequence[Path]]  # of a job's new files: equal ones that are there, if there are


@dataclass(slots=True)
class CollectedJob:
    """One job being collected: the pieces `add`ed in order become files, and its counts become its Done.

    `gathers`: the stage that takes the entire media as one part; results whose format is its kind are put together.
    `gathered`: they were sent to it. `finishing`: its files are being finished, and no more results are taken.
    `awaited`: its publisher is done. `published`: the Done that another collector published. `complete_s`: when the
    last result was stored, in seconds since 1970; 0 if this collector waited for it. `cards`: the marks of the cards
    that computed its parts.
    """

    ref: JobRef
    target: Path
    finished: "asyncio.Future[Done]"
    origin: Origin
    gathers: OperatorStage | None = None
    order: JobOrder[Piece] = field(init=False)
    failures: Reasons = field(default_factory=Reasons)
    skipped: str = ""
    blobs: list[str] = field(default_factory=list)
    last_seq: int = 0
    complete_s: float = 0.0
    finishing: bool = False
    awaited: bool = False
    record: JobRecord | None = None
    gathered: bool = False
    published: Done | None = None
    cards: set[str] = field(default_factory=set)
    _gathering: Gathering = field(default_factory=Gathering)
    _assembler: Assembler | None = None
    _closing: Lengthy | None = None
    _aborted: bool = False
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _frames: int = 0
    _lost: int = 0
    _unseen: int = 0
    _notes: list[str] = field(default_factory=list)
    _windows: int = 0
    _duration_s: float = 0.0
    _computed_s: float = 0.0
    _tokens: int = 0
    _not_finite: Counter[str] = field(default_factory=Counter)  # windows of each output
    _noted: int = 0

    def __post_init__(self) -> None:
        self.order = JobOrder(self.gathers is not None)

    # assembling, off the event loop

    def add(self, message: Message, buffers: list[memoryview], output: Format) -> None:
        """Take the piece that is next in order."""
        if self._aborted:  # by another thread: no new file may begin
            return
        if isinstance(message, Failure):
            self.failures.add(describe(message), message.start_s, message.end_s)
            self.cards.update(message.cards)
            return
        assert isinstance(message, Result | Fragment)
        if self.gathers and isinstance(message, Result) and message.format == self.gathers.kind:
            self._gathering.add(message.meta, unpack_values(message.arrays, buffers))
            self._count(message, buffers)
            return
        media = message.meta.media if isinstance(message, Result) else message.media
        if self._assembler is None:
            self._assembler = output.assemble(self.target, media)
            if isinstance(self._assembler, Traced):
                self._assembler.set_origin(self.origin)
        if isinstance(message, Fragment):
            self._assembler.add_tracks(message, unpack_arrays(message.arrays, buffers))
        else:
            self._assembler.add(message.meta, unpack_arrays(message.arrays, buffers), message.facts)
            self._count(message, buffers)

    def _count(self, result: Result, buffers: list[memoryview]) -> None:
        for buffer in buffers:
            self._digest.update(buffer)
        self._frames += result.meta.frames
        self._lost += result.meta.lost
        self._unseen += result.meta.unseen
        self._duration_s = max(0.0, result.meta.media.duration_s)
        self._computed_s += result.meta.computed_s
        self.cards.update(result.meta.cards)
        self._tokens += result.meta.tokens
        for reason in failed_items(result.meta):
            self.failures.add(reason)
        for note in map(shortened, result.meta.notes):
            if note not in self._notes and len(self._notes) < DONE_REASONS:
                self._notes.append(note)
        self._windows += len(result.meta.pts)
        if len(self._not_finite) < DONE_REASONS:  # a model has fewer outputs, a forged result may have more
            self._not_finite.update(result.meta.not_finite)

    async def send_gathered(self, broker: Broker, segment: int, again: str = "") -> None:
        """Send all parts of the media as one, which is this segment, to the stage that takes it; `again`: anew, why."""
        assert self.gathers is not None
        gathering, self._gathering = self._gathering, Gathering()
        part = await asyncio.to_thread(gathering.part, segment)
        subject = broker.names.work(self.ref.pipeline, self.gathers.name, self.ref.priority, self.ref.tenant)
        body = await asyncio.to_thread(encode_part, part)
        self.record = self.record or await JobRecord.current(broker, self.ref)
        headers = {} if self.record is None else place_of(self.record.manifest)
        headers = {**headers, HEADER_AGAIN: again} if again else headers
        await broker.publish(subject, body, part.meta.key.message_id(self.gathers.name, again), headers)

    def note_incomplete(self) -> None:
        """Note why the stage that takes the entire media was not run."""
        assert self.gathers is not None
        what = (
            f"stage `{self.gathers.name}` takes the entire media, and it was not run, because parts of the media failed"
        )
        self._notes.append(what)

    async def closed(self, compare: Compare) -> tuple[list[Path], Sequence[Path]]:
        """`close` in a thread, and what `compare` finds. A cancellation ends it; it and an error leave no file."""
        files: list[Path] = []
        try:
            await in_thread(lambda: files.extend(self.close()), stop=self.abort)
            return files, await in_thread(compare, self.ref.id, files)
        except BaseException:
            await asyncio.to_thread(delete_files, files, self.target)
            raise

    def close(self) -> list[Path]:
        """Finish the files, and return them; a media that failed and has no row has none.

        `abort`, called by another thread, ends a `Lengthy` one with an error.
        """
        assembler, self._assembler = self._assembler, None  # frees its memory: the collector keeps this job
        self._gathering = Gathering()
        if not self.failures.count and (nothing := nothing_whole(self._frames, self._unseen, self._lost)):
            self.failures.add(nothing)
        if assembler is None:
            return []
        if self.failures.count and not self._windows:
            assembler.abort()
            return []
        self._closing = assembler if isinstance(assembler, Lengthy) else None
        try:
            files = assembler.close()
        except BaseException:
            assembler.abort()
            raise
        finally:
            self._closing = None
        self._notes += assembler.notes
        self._notes += self._not_finite_notes()
        return files

    @property
    def share(self) -> float:
        """How much of the files is finished, 0 to 1, where that takes long; 0.0 before."""
        return self._closing.share if self._closing is not None else 0.0

    def fail(self, error: Exception) -> None:
        """End it with an error, which `Collector.wait` raises, and remove what was written."""
        if not self.finished.done():
            self.finished.set_exception(as_rigflow_error(self.ref, error))
        self.abort()

    def abort(self) -> None:
        """Remove what was written, as far as that is possible; `close` does so by itself, once it is stopped."""
        self._aborted = True
        if (closing := self._closing) is not None:
            closing.stop()
        assembler, self._assembler = self._assembler, None
        if assembler is not None:
            with contextlib.suppress(Exception):
                assembler.abort()

    def done(self, files: list[Path]) -> Done:
        """The job's Done, with the files of `close`."""
        return Done(
            job=self.ref,
            segments=self.order.segments,
            frames=self._frames,
            lost=self._lost,
            failures=tuple(self.failures.texts),
            more_failures=self.failures.more,
            missing=self.failures.missing,
            digest=self._digest.hexdigest(),
            files=tuple(str(file.relative_to(self.target.parent)) for file in files[:DONE_FILES]),
            more_files=max(0, len(files) - DONE_FILES),
            notes=(*self._notes, *([self.skipped] if self.skipped else [])),
            duration_s=self._duration_s,
            computed_s=self._computed_s,
            tokens=self._tokens,
        )

    def is_published(self, done: Done) -> bool:
        """Whether another collector published this Done, whatever it called its files."""
        files = {"files": (), "more_files": 0}
        return self.published is not None and self.published.model_copy(update=files) == done.model_copy(update=files)

    def _not_finite_notes(self) -> list[str]:
        """How many windows of which output have values that are NaN or infinite."""
        counts, windows = sorted(self._not_finite.items()), count(self._windows, "window")
        notes = [
            f"output `{name}`: {number} of {windows} {'has' if number == 1 else 'have'} values that are not finite"
            for name, number in counts
        ]
        return [shortened(note) for note in notes[:NAMED_OUTPUTS]] + (
            [f"and so have {len(notes) - NAMED_OUTPUTS} more outputs"] if len(notes) > NAMED_OUTPUTS else []
        )

    # the manifest

    @property
    def has_news(self) -> bool:
        """Whether segments were finished that the manifest does not have."""
        return self.order.segments > self._noted

    async def note_progress(self, broker: Broker) -> None:
        """Write the progress into the manifest. Raises JobCancelled."""
        self.record = self.record or await JobRecord.current(broker, self.ref)
        if self.record is None:
            return  # its publisher has not written it yet
        self._noted = self.order.segments
        await self.record.change(
            segments_done=max(self._noted, self.record.manifest.segments_done),
            frames=max(self._frames, self.record.manifest.frames),
            lost=max(self._lost, self.record.manifest.lost),
            failures=self.failures.count,
        )

    async def note_evicted(self, broker: Broker) -> None:
        """Note that results are about to be deleted: a collector that starts later cannot complete the job."""
        self.record = self.record or await JobRecord.current(broker, self.ref)
        self.record = self.record or JobRecord(broker, Manifest(job=self.ref, name="", created_s=broker.now_s()))
        await self.record.change(results_evicted=True)

    async def forget_results(self, broker: Broker) -> None:
        """Delete the results at the broker that were taken here, and their objects."""
        await broker.purge(broker.names.results_of(self.ref.tenant), broker.names.results(self.ref), self.last_seq)
        await discard_claims(broker, broker.names.blobs_of(self.ref.tenant), self.blobs)


def as_rigflow_error(job: JobRef, error: Exception) -> RigflowError:
    """The error that ends a job: a RigflowError unchanged, any other as an OutputError with its text."""
    if isinstance(error, RigflowError):
        return error
    what = f"the results of job {job.id} cannot be put together ({type(error).__name__}: {error})"
    made = OutputError(what, "a result is not what its pipeline makes; publish the job again under another id")
    made.__cause__ = error
    return made


def generation_of(message: Result | Fragment | Failure | Done) -> int:
    """The generation of the job that a message belongs to."""
    if isinstance(message, Done):
        return message.job.generation
    return (message.meta.key if isinstance(message, Result) else message.key).job.generation


def marks_of(message: Message) -> tuple[str, ...]:
    """The marks of the cards that computed a part, or failed to."""
    if isinstance(message, Failure):
        return message.cards
    return message.meta.cards if isinstance(message, Result) else ()
