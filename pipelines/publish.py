"""Media -> segments -> the first queue. While that queue is full, publishing waits.

The manifest of the job records how much is stored, so that a publisher that was killed continues where it stopped.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from engines.gathering import gathering_stage
from engines.media.limits import Limits
from engines.media.medium import Input, PipelineMedia, SplitRequest
from engines.media.segment_data import SegmentData
from engines.media.shared import SharedFolders
from engines.outputs.format import sound_of
from engines.part import pack_arrays
from pipelines.admission import Admission
from pipelines.broker import Broker
from pipelines.early_split import EarlySplit
from pipelines.job_records import JobCancelled, JobRecord
from pipelines.jobs import begin
from pipelines.queue_share import QueueShare
from pipelines.sending import Cut, Sending
from pipelines.tracing import traced
from schemas.errors import Disposition, MediaError, RigflowError
from schemas.jobs import JobRef, JobState, Key, Manifest, Priority
from schemas.pipeline import PipelineSpec
from schemas.results import Failure
from schemas.segments import Fragment
from schemas.settings import Settings
from schemas.subjects import HEADER_TYPE, SPLIT

T = TypeVar("T")
OnSent = Callable[[str, float, int], None]  # job, seconds of media sent so far, segments sent so far
PREFETCH = 2  # segments that are being published while the next is cut
NOTE_S = 0.5  # how often progress is written into the manifest, and a cancellation is noticed


def job_id(spec: PipelineSpec, files: Iterable[tuple[str, os.stat_result]]) -> str:
    """The same job id for the same files and pipeline: 20 hex digits over paths, sizes and times of change.

    `files` are paths with links resolved, and what the system says of each.
    """
    digest = hashlib.sha256(spec.revision.encode())
    for path, stat in files:
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


def job_name(kind: str, names: Sequence[str]) -> str:
    """The name of a job of these files: that of the only one, or `images` of several of kind `image`."""
    return names[0] if len(names) == 1 else f"{kind}s"


class Publisher:
    """Publishes jobs of one pinned pipeline in one priority; `hosted`: a worker is asked to collect them.

    `submitter`: the name of the API key that they came with. `share`: of the first queue; without it all is sent that
    fits into the queue.

    `gathers`: a stage of the pipeline takes the entire media.

    The methods that publish take the record that `begin` gave; without one they continue the job's current generation.
    What is already at the broker is not sent again. They raise JobCancelled when the job is cancelled.
    """

    def __init__(
        self,
        broker: Broker,
        spec: PipelineSpec,
        tenant: str,
        priority: Priority,
        on_sent: OnSent = lambda *_: None,
        hosted: bool = False,
        submitter: str | None = None,
        share: QueueShare | None = None,
    ) -> None:
        self._broker = broker
        self.spec = spec
        self._tenant = tenant
        self._priority = priority
        self._on_sent = on_sent
        self._hosted = hosted
        self._submitter = submitter
        self._share = share
        self.gathers = gathering_stage(spec) is not None
        consumer = broker.names.consumer(priority, tenant)
        stream = broker.names.work_stream(spec.name, spec.decode.name)
        if tenant in broker.names.tenants:  # the queue is shared with others: nobody fills it
            self._share = share or QueueShare(broker, stream, consumer, lambda _: None)
        self._admission = Admission(broker, spec.name, spec.decode.name, consumer)

    def ref(self, job: str) -> JobRef:
        """The reference of a job with this id: its tenant, pipeline, revision and priority."""
        return JobRef(
            id=job, tenant=self._tenant, pipeline=self.spec.name, revision=self.spec.revision, priority=self._priority
        )

    async def begin(
        self, job: JobRef, name: str, source: str = "", again: bool = False, nbytes: int = 0, trace: str = ""
    ) -> JobRecord:
        """Begin or continue a job, see `pipelines.jobs.begin`. `source` identifies its input of `nbytes`.

        `trace`: the header `traceparent` that it came with.
        """
        wanted = self._manifest(job, name, source, nbytes)
        return await begin(self._broker, wanted.model_copy(update={"trace": trace}), again)

    async def publish(
        self,
        job: JobRef,
        kind: str,
        inputs: Sequence[Input],
        record: JobRecord | None = None,
        early: EarlySplit | None = None,
    ) -> int:
        """Split files of one kind of media and send their segments, tracks first; the number of segments.

        `early`: their segments, as `segments_of` gives them, if that was begun. Of a new job of which nothing was sent
        because its files are refused, no record stays. Raises MediaError, UsageError.
        """
        record = record or await self._open(job, job_name(kind, [given.name for given in inputs]))
        name, attempt = SPLIT if self._hosted else "publish", time.time_ns()
        with traced(self._broker.tracer, name, record.manifest, attempt) as headers:
            segments = segments_of(self._broker.settings, self.spec, kind, inputs) if early is None else early
            return await self._publish(record, self._cuts(segments, inputs[0].name, headers))

    async def give_up(self, record: JobRecord, error: RigflowError) -> None:
        """Publish the failure of the rest of a job among its results: its collectors wait for them."""
        known = record.manifest
        failure = Failure(
            key=Key(job=known.job, segment=-1, final=True),
            stage=SPLIT,
            entire_segment=True,
            error=str(error),
            start_s=known.sent_s,
            end_s=known.duration_s,
            at_s=self._broker.now_s(),
        )
        identity = f"{failure.key.message_id('failure')}/{failure.at_s}"
        await self._broker.publish(
            self._broker.names.results(known.job), failure.encode(), identity, {HEADER_TYPE: "failure"}
        )

    # the manifest

    def _manifest(self, job: JobRef, name: str, source: str = "", nbytes: int = 0) -> Manifest:
        return Manifest(
            job=job,
            name=name,
            source=source,
            hosted=self._hosted,
            gathers=self.gathers,
            submitter=self._submitter,
            nbytes=nbytes,
            created_s=self._broker.now_s(),
        )

    async def _open(self, job: JobRef, name: str) -> JobRecord:
        return await JobRecord.current(self._broker, job) or JobRecord(self._broker, self._manifest(job, name))

    async def _publish(self, record: JobRecord, cuts: Iterator[Cut]) -> int:
        """Send what is not at the broker yet, and write the progress into the manifest."""
        if record.manifest.total is not None:
            self._on_sent(record.manifest.job.id, record.manifest.sent_s, record.manifest.total)
            return record.manifest.total
        sending, is_new = Sending(PREFETCH, record.manifest), not record.stored
        if is_new and record.manifest.source and record.manifest.job.id != record.manifest.source:
            await record.change()  # of two inputs that come at once under an id that was chosen, one is the job
        tasks = [asyncio.create_task(self._send(record, cuts, sending)), asyncio.create_task(_note(record, sending))]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except RigflowError as error:
            refused = error.disposition is Disposition.REJECT and not isinstance(error, JobCancelled)
            if refused and not (is_new and not sending.begun and await record.forget()):
                await _note_failure(record, sending, error, self._broker.now_s())
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await record.change(**sending.progress, state=JobState.PUBLISHED, total=sending.segments)
        return sending.segments

    async def _send(self, record: JobRecord, cuts: Iterator[Cut], sending: "Sending") -> None:
        job, known, number = record.manifest.job, record.manifest.segments, 0
        async with sending:
            while (cut := await asyncio.to_thread(_next, cuts)) is not None:
                if number >= known:
                    if self._share is not None:
                        await self._share.room()
                    await self._admission.room()
                    await sending.submit(cut, Key(job=job, segment=number, final=cut.final))
                number += 1
                self._on_sent(job.id, cut.sent_s, number)

    # segments

    def _cuts(self, segments: Iterator[SegmentData], name: str, headers: Mapping[str, str]) -> Iterator[Cut]:
        final = False
        for segment_data in segments:
            final = segment_data.final
            send = partial(self._send_segment, segment_data, headers)
            yield Cut(send, final, segment_data.end_s, segment_data.media.duration_s)
        if not final:
            raise MediaError(f"{name} has nothing that can be sent", "see what is in it")

    async def _send_segment(self, segment_data: SegmentData, headers: Mapping[str, str], key: Key) -> None:
        if segment_data.tracks is not None:
            beside = segment_data.tracks
            arrays, buffers = pack_arrays(beside.arrays)
            fragment = Fragment(
                key=key,
                media=segment_data.media,
                container=beside.container,
                tracks=beside.tracks,
                notes=beside.notes,
                arrays=arrays,
            )
            body = fragment.encode(buffers)
            subject = self._broker.names.results(key.job)
            await self._broker.publish(subject, body, key.message_id("tracks"), {HEADER_TYPE: "fragment", **headers})
        first = self.spec.decode.name
        subject = self._broker.names.work(self.spec.name, first, key.job.priority, key.job.tenant)
        segment = segment_data.segment(key).pieces(segment_data.content)
        await self._broker.publish(subject, segment, key.message_id(first), headers)


def segments_of(settings: Settings, spec: PipelineSpec, kind: str, inputs: Sequence[Input]) -> Iterator[SegmentData]:
    """The segments of files of one kind of media for a pinned pipeline. Raises MediaError, as it is iterated."""
    request = SplitRequest(
        spec.grid,
        spec.segment_s,
        sound_of(spec.encode),
        Limits.of(settings),
        SharedFolders.of(settings.shared),
    )
    return PipelineMedia(spec).split(kind, inputs, request)


async def _note(record: JobRecord, sending: "Sending") -> None:
    """Write progress until cancelled. Raises JobCancelled once the job is cancelled, also while a full queue blocks."""
    while True:
        await asyncio.sleep(NOTE_S)
        await record.change(**sending.progress)


async def _note_failure(record: JobRecord, sending: "Sending", error: RigflowError, at_s: float) -> None:
    missing = ((sending.sent_s, sending.duration_s),) if sending.duration_s > sending.sent_s else ()
    await record.change(
        **sending.progress,
        state=JobState.FAILED,
        failures=1,
        reasons=(str(error),),
        missing=missing,
        ended_s=at_s,
    )


def _next(iterator: Iterator[T]) -> T | None:
    return next(iterator, None)
