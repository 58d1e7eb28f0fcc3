"""One job: its events, its files, its end. Everything is read from the broker, so that any process can do it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from engines.media.medium import Input
from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.collect_requests import request_collect
from pipelines.collecting import Compare
from pipelines.early_split import EarlySplit
from pipelines.inventory import take_inventory
from pipelines.job_events import Ended, Event, job_events
from pipelines.job_files import JobFile, job_file_at, job_files
from pipelines.job_records import JobRecord
from pipelines.jobs import cancel, delete
from pipelines.publish import Publisher
from pipelines.registry import load_pipeline
from pipelines.tracing import Tracer
from schemas.errors import NotFound, RigflowError
from schemas.jobs import JobRef, Manifest
from schemas.parts import PartMeta
from schemas.results import Done


class Job:
    """A job of the fleet, made by `Client.submit`, `Client.open` and `Client.find`."""

    def __init__(self, broker: Broker, record: JobRecord, new: bool = False) -> None:
        self._broker = broker
        self._record = record
        self.new = new  # whether this call began it

    @property
    def ref(self) -> JobRef:
        """Its reference, with the generation that this process works on."""
        return self._record.manifest.job

    @property
    def id(self) -> str:
        """Its id."""
        return self.ref.id

    @property
    def manifest(self) -> Manifest:
        """What was known of it when it was read or written here; `progress` asks again."""
        return self._record.manifest

    @property
    def tracer(self) -> Tracer | None:
        """What takes its spans."""
        return self._broker.tracer

    @property
    def before(self) -> Manifest | None:
        """An earlier job of this id, in whose place it was begun."""
        return self._record.before

    @property
    def note(self) -> str:
        """Why it was begun anew, if a user can change that."""
        return self._record.note

    async def progress(self) -> Manifest:
        """How far it is now. Raises NotFound when the broker does not know it any more."""
        record = await JobRecord.read(self._broker, self.ref)
        if record is None:
            raise NotFound(f"the broker knows no job {self.id}", "see `rigflow jobs list`")
        if record.manifest.state.ended:
            return record.manifest
        return (await take_inventory(self._broker, record.manifest)).progress

    def events(self, after: int = 0, found_now: bool = False) -> AsyncGenerator[Event, None]:
        """What happened and happens, until it is over; see `pipelines.job_events.job_events`.

        `found_now`: its manifest was read just now, and is not read again.
        """
        return job_events(self._broker, self.ref, after, self.manifest if found_now else None)

    def files(self, after: int = 0, name: str | None = None) -> AsyncGenerator[JobFile, None]:
        """Its finished files at the broker, which a worker collected; those behind `after`, or of one name, alone."""
        return job_files(self._broker, self.ref, after, name)

    async def file(self, name: str, sequence: int = 0) -> JobFile | None:
        """One file; where its `sequence` is known, the others are not looked at. None where there is none."""
        found = await job_file_at(self._broker, self.ref, sequence, name) if sequence else None
        if found is not None:
            return found
        async with aclosing(self.files(name=name)) as files:
            return await anext(files, None)

    async def done(self) -> Done:
        """Its Done, once it is over."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, Ended):
                    return event.done
        raise AssertionError

    async def cancel(self) -> Manifest:
        """Cancel it; see `pipelines.jobs.cancel`. Of a job that was over, the audit log has no entry."""
        now = await JobRecord.read(self._broker, self.ref)  # it may have been begun again
        if not (self.manifest if now is None else now.manifest).state.ended:
            await audit(self._broker, "job-cancelled", self.id, tenant=self.ref.tenant)
        return await cancel(self._broker, self.manifest)

    async def delete(self) -> None:
        """Cancel it if it is not over, and delete its results and its record."""
        await audit(self._broker, "job-deleted", self.id, tenant=self.ref.tenant)
        await delete(self._broker, self.manifest)

    async def collect(
        self,
        target: Path,
        on_part: Callable[[str, PartMeta], None] = lambda *_: None,
        compare: Compare = lambda *_: (),
    ) -> Done:
        """Write its files here, as `target` with suffixes, once they are complete. Raises as `Collector.wait`."""
        spec = await load_pipeline(self._broker, self.ref.revision)
        collector = Collector(self._broker, spec, on_part, compare=compare)
        await collector.open({self.ref: target})
        try:
            return await collector.wait(self.id)
        finally:
            await collector.close()


class OpenJob(Job):
    """A job of files on this machine, which is sent by `send`."""

    def __init__(
        self, broker: Broker, record: JobRecord, publisher: Publisher, kind: str, inputs: Sequence[Input]
    ) -> None:
        super().__init__(broker, record)
        self._publisher = publisher
        self._kind = kind
        self._inputs = inputs

    async def send(self, early: EarlySplit | None = None) -> None:
        """Split the files, and publish what is not at the broker yet. Waits while the fleet is full.

        `early`: the files' segments, if they are being cut. Raises MediaError, JobCancelled, BrokerError.
        """
        begun = await early.ready() if early is not None else None
        await self._publisher.publish(self.ref, self._kind, self._inputs, self._record, begun)

    async def hand_over(self) -> None:
        """Leave it to a worker, if a stage takes its entire media: that stage is run for a collector alone."""
        if self.manifest.gathers and not self.manifest.state.ended:
            await self._record.change(hosted=True)
            await request_collect(self._broker, self.manifest, f"{self.ref.identity}/publish")

    @property
    def is_known(self) -> bool:
        """Whether the broker knows it: not before the first of it is sent, and not where its files are refused."""
        return self._record.stored

    async def give_up(self, error: RigflowError) -> None:
        """Publish that the rest of it cannot be sent; collectors in other processes wait for it."""
        await self._publisher.give_up(self._record, error)
