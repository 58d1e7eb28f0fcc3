"""Media -> segments -> the first hop, with the pressure of a full hop reaching whoever publishes."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from engines.media.images import read_image
from engines.media.split import Piece, Splitter
from pipelines.broker import Broker
from pipelines.collect import done_of
from schemas.errors import RigflowError
from schemas.messages import Failure, Fragment, Item, JobRef, Key, Lane, Manifest, MediaInfo, Segment
from schemas.pipeline import PipelineSpec
from schemas.subjects import HEADER_TYPE, SPLIT
from schemas.wire import Buffer

T = TypeVar("T")
OnSent = Callable[[str, float, int], None]  # job, seconds of media sent so far, segments sent so far
ALBUM_ITEMS = 64  # small images travel together, for there the cost of a message decides
ALBUM_BYTES = 4 << 20
AHEAD = 2  # segments on their way to the broker while the next is cut


def job_id(spec: PipelineSpec, paths: Sequence[Path]) -> str:
    """The same job id for the same files and pipeline: 20 hex digits over paths, sizes and times of change."""
    digest = hashlib.sha256(spec.revision.encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


async def unfinished(broker: Broker, job: JobRef) -> JobRef:
    """`job`, or the first of its successors `<id>-2`, `<id>-3` ... that is not over.

    A job that is over has given its results away, and the broker takes what is sent for it again as repeats.
    """
    number, candidate = 1, job
    while await done_of(broker, candidate) is not None:
        number += 1
        candidate = job.model_copy(update={"id": f"{job.id}-{number}"})
    return candidate


class Publisher:
    """Publishes jobs of one pinned pipeline in one lane; `hosted`: a worker is asked to collect them."""

    def __init__(
        self,
        broker: Broker,
        spec: PipelineSpec,
        space: str,
        lane: Lane,
        on_sent: OnSent = lambda *_: None,
        hosted: bool = False,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._space = space
        self._lane = lane
        self._on_sent = on_sent
        self._hosted = hosted

    def ref(self, job: str) -> JobRef:
        """What a job with this id is pinned to."""
        return JobRef(
            id=job, space=self._space, pipeline=self._spec.name, revision=self._spec.revision, lane=self._lane
        )

    async def publish_video(self, job: JobRef, source: Path | Buffer, name: str) -> int:
        """Cut a video and send its segments, sound first; the number of segments. Raises MediaError, UsageError."""
        splitter = Splitter(
            source, self._spec.grid, self._spec.segment_s, name=name, sound=self._spec.encode.format == "video"
        )
        await asyncio.to_thread(splitter.__enter__)
        media = splitter.media
        await self._note(job, name)
        sent = 0
        async with _Ahead(AHEAD) as ahead:
            pieces = splitter.pieces()
            while (piece := await asyncio.to_thread(_next, pieces)) is not None:
                await ahead.submit(self._send_piece(Key(job=job, segment=sent, final=piece.final), media, piece))
                sent += 1
                end_s = media.duration_s if piece.end is None else media.clock.seconds(piece.end)
                self._on_sent(job.id, end_s, sent)
        await self._note(job, name, "published", sent)
        return sent

    async def publish_images(self, job: JobRef, paths: Sequence[Path], names: Sequence[str]) -> int:
        """Send images, many to a segment, as one job; the number of segments."""
        name = names[0] if len(names) == 1 else "images"
        await self._note(job, name)
        sent = 0
        async with _Ahead(AHEAD) as ahead:
            groups = albums(paths, names, self._broker.settings.shared)
            album = await asyncio.to_thread(_next, groups)
            while album is not None:
                following = await asyncio.to_thread(_next, groups)
                items, buffers = album
                await ahead.submit(
                    self._send_images(Key(job=job, segment=sent, final=following is None), items, buffers)
                )
                sent += 1
                self._on_sent(job.id, float(len(items)), sent)
                album = following
        await self._note(job, name, "published", sent)
        return sent

    async def publish_image(self, job: JobRef, image: Buffer, name: str) -> None:
        """Send one image that is in memory, as a job of its own."""
        await self._send_images(Key(job=job, segment=0, final=True), [Item(name=name)], [image])
        await self._note(job, name, "published", 1)

    async def give_up(self, job: JobRef, error: RigflowError) -> None:
        """The rest of a job will never come: say so where its results appear, for whoever waits for them."""
        key = Key(job=job, segment=-1, final=True)
        failure = Failure(key=key, stage=SPLIT, whole=True, error=str(error), at_s=time.time())
        identity = f"{key.message_id('failure')}/{failure.at_s}"
        await self._broker.publish(
            self._broker.names.results(job), failure.encode(), identity, {HEADER_TYPE: "failure"}
        )

    async def _send_images(self, key: Key, items: Sequence[Item], buffers: Sequence[Buffer]) -> None:
        segment = Segment(key=key, media=MediaInfo(kind="image", name=items[0].name), items=tuple(items))
        await self._enter(key, segment.encode(buffers))

    async def _send_piece(self, key: Key, media: MediaInfo, piece: Piece) -> None:
        if piece.sound is not None:
            fragment = Fragment(key=key, media=media, container=piece.sound_container)
            body = fragment.encode([piece.sound])
            subject = self._broker.names.results(key.job)
            await self._broker.publish(subject, body, key.message_id("sound"), {HEADER_TYPE: "fragment"})
        segment = Segment(key=key, media=media, container=piece.container, start=piece.start, end=piece.end)
        await self._enter(key, segment.encode([piece.data]))

    async def _enter(self, key: Key, body: bytes) -> None:
        first = self._spec.decode.name
        subject = self._broker.names.work(self._spec.name, first, self._lane)
        await self._broker.publish(subject, body, key.message_id(first))

    async def _note(
        self, job: JobRef, name: str, state: Literal["publishing", "published"] = "publishing", segments: int = 0
    ) -> None:
        manifest = Manifest(
            job=job, name=name, state=state, segments=segments, created_s=time.time(), hosted=self._hosted
        )
        await self._broker.put(self._broker.names.jobs, job.id, manifest.model_dump_json().encode())


class _Ahead:
    """A few publishes in flight, in order of submission; the first failure surfaces at the next call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._flying: list[asyncio.Task[None]] = []

    async def submit(self, sending: "asyncio._CoroutineLike[None]") -> None:
        self._flying.append(asyncio.create_task(sending))
        while len(self._flying) >= self._limit:
            await self._flying.pop(0)

    async def __aenter__(self) -> "_Ahead":
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        flying, self._flying = self._flying, []
        if kind is not None:
            for task in flying:
                task.cancel()
        for outcome in await asyncio.gather(*flying, return_exceptions=kind is not None):
            if kind is None and isinstance(outcome, BaseException):
                raise outcome


def _next(iterator: Iterator[T]) -> T | None:
    return next(iterator, None)


def albums(paths: Sequence[Path], names: Sequence[str], shared: bool) -> Iterator[tuple[list[Item], list[bytes]]]:
    """Images in groups of up to 64 or 4 MB: items, and their bytes unless the workers see the files themselves.

    One that cannot be read travels as a failed item.
    """
    items: list[Item] = []
    buffers: list[bytes] = []
    size = 0
    for path, name in zip(paths, names, strict=True):
        item, data = Item(name=name, path=str(path.resolve())), b""
        if not shared:
            item, data = read_image(item)
            item = item.model_copy(update={"path": ""})
        if items and (len(items) == ALBUM_ITEMS or size + len(data) > ALBUM_BYTES):
            yield items, buffers
            items, buffers, size = [], [], 0
        items.append(item)
        buffers += [] if shared else [data]
        size += len(data)
    if items:
        yield items, buffers
