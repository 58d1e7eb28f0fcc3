"""The events of a job as lines, read from the broker once for all streams of this gateway that follow the job.

A stream has all events from the beginning, or those after a number. Lines that were read are kept for streams that
begin later, and for slow ones, up to a number of bytes. Nothing waits for a slow stream: one that is too far behind the
others ends. A single stream is never behind, as the broker is read only as fast as the fastest stream takes lines.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from pipelines.job import Job
from pipelines.job_events import Ended, Event, Progress, TextWritten
from schemas.errors import RigflowError

log = logging.getLogger("rigflow")
FEED_BYTES = 1 << 20  # of lines of one feed: a stream that is further behind ends
ALL_BYTES = 64 << 20  # of all feeds; with more, a feed keeps only what its fastest stream has not taken
AHEAD_BYTES = 64 << 10  # read before any stream takes it; also what a stream takes at once
LINGER_S = 2.0  # lines of a job that is over are kept for streams that begin within this time
ToLine = Callable[[str, Event], bytes]


class Behind(Exception):
    """A stream is so slow that lines which it has not taken are gone. It may begin again after its last number."""


@dataclass(frozen=True, slots=True)
class _Entry:
    line: bytes
    sequence: int  # of the event, 0: it has none
    passing: bool  # it is not for streams that begin later
    last: bool


class Feeds:
    """The feeds of a gateway, found by job. `to_line` makes the line of an event."""

    def __init__(self, to_line: ToLine) -> None:
        self.to_line = to_line
        self.nbytes = 0  # of all feeds
        self._feeds: dict[tuple[str, str], list[Feed]] = {}

    @property
    def feeds(self) -> list["Feed"]:
        """All of them."""
        return [feed for feeds in self._feeds.values() for feed in feeds]

    def join(self, job: Job, after: int = 0) -> "Stream":
        """A stream of the events after this number of a job whose manifest was read just now. `leave` ends it."""
        feeds = self._feeds.setdefault((job.ref.tenant, job.id), [])
        fitting = (each for each in feeds if each.known.job == job.ref and each.dropped <= after)  # of this generation
        # the lines of a job that is over are true as long as its manifest does not change
        feed = next((each for each in fitting if not each.over or (each.lingers and each.known == job.manifest)), None)
        if feed is None:
            feed = Feed(self, job)
            feeds.append(feed)
        return Stream(feed, after)

    def wake(self) -> None:
        """Let all streams look whether they have to end."""
        for feed in self.feeds:
            feed.wake()

    def forget(self, feed: "Feed") -> None:
        """Free a feed that has no stream."""
        place = feed.known.job.tenant, feed.known.job.id
        left = [each for each in self._feeds.pop(place, ()) if each is not feed]
        if left:
            self._feeds[place] = left
        feed.close()


class Feed:
    """Reads the events of one job, while streams follow them."""

    def __init__(self, feeds: Feeds, job: Job) -> None:
        self.known = job.manifest  # as it was when this began
        self.over = self.lingers = False
        self.streams: set[Stream] = set()
        self.entries: deque[_Entry] = deque()
        self.first = 0  # how many entries were dropped
        self.dropped = 0  # the last number that was dropped
        self.progress = b""  # the newest line of progress
        self.added = 0  # bytes of all entries, also of those that were dropped
        self.nbytes = 0  # of those that are kept
        self._feeds = feeds
        self._taken = asyncio.Event()
        self._task = asyncio.create_task(self._read(job))

    @property
    def end(self) -> int:
        """How many entries there were."""
        return self.first + len(self.entries)

    def wake(self) -> None:
        """Let its streams look for lines."""
        for stream in self.streams:
            stream.more.set()

    def on_taken(self) -> None:
        """A stream took lines, or has left."""
        self._taken.set()
        if not self.streams and not self.lingers:
            self._feeds.forget(self)

    def close(self) -> None:
        """Read no more, and keep nothing."""
        self._task.cancel()
        while self.entries:
            self._drop_first()

    async def _read(self, job: Job) -> None:
        try:
            async with aclosing(job.events(found_now=True)) as events:
                async for event in events:
                    self._add(event, self._feeds.to_line(job.id, event))
                    while self._ahead() > AHEAD_BYTES:
                        self._taken.clear()
                        await self._taken.wait()
        except RigflowError as error:
            log.warning("the events of job %s end: %s", job.id, error)
        except Exception:  # its streams must not wait for ever
            log.exception("the events of job %s end", job.id)
        else:
            self.lingers = True
        self.over = True
        self.wake()
        await asyncio.sleep(LINGER_S)
        self.lingers = False
        self.on_taken()

    def _add(self, event: Event, line: bytes) -> None:
        passing = isinstance(event, Progress | TextWritten)
        if isinstance(event, Progress):
            self.progress = line
        sequence = 0 if isinstance(event, Progress | TextWritten) else event.sequence
        self.entries.append(_Entry(line, sequence, passing, isinstance(event, Ended)))
        self.added += len(line)
        self.nbytes += len(line)
        self._feeds.nbytes += len(line)
        fastest = max((stream.at for stream in self.streams), default=self.end)
        while self.first < fastest and (self.nbytes > FEED_BYTES or self._feeds.nbytes > ALL_BYTES):
            self._drop_first()
        self.wake()

    def _drop_first(self) -> None:
        entry = self.entries.popleft()
        self.first += 1
        self.dropped = max(self.dropped, entry.sequence)
        self.nbytes -= len(entry.line)
        self._feeds.nbytes -= len(entry.line)

    def _ahead(self) -> int:
        """Bytes that no stream has taken."""
        return self.added - max((stream.taken for stream in self.streams), default=self.added)


class Stream:
    """One reader of a feed: lines of what is kept, then those that come. `more` is set when there may be some."""

    def __init__(self, feed: Feed, after: int) -> None:
        self.more = asyncio.Event()
        self.at = feed.first
        self.taken = feed.added - feed.nbytes  # bytes of the entries before `at`
        self._feed, self._after = feed, after
        self._since = feed.end
        self._begun = False
        feed.streams.add(self)

    @property
    def is_over(self) -> bool:
        """Whether there will be no more lines, and all are taken."""
        return self._feed.over and self.at >= self._feed.end

    def take(self) -> bytes:
        """The lines that are there, some at a time; empty: none. Raises Behind."""
        feed, found, size = self._feed, list[bytes](), 0
        if self.at < feed.first:
            raise Behind
        self.more.clear()
        if not self._begun and self._since > 0:
            found.append(feed.progress)  # that of now, in place of those before
        self._begun = True
        while self.at < feed.end and size < AHEAD_BYTES:
            entry = feed.entries[self.at - feed.first]
            if self._wants(entry):
                found.append(entry.line)
            size += len(entry.line)
            self.at += 1
        self.taken += size
        if self.at < feed.end or feed.over:
            self.more.set()
        feed.on_taken()
        return b"".join(found)

    def leave(self) -> None:
        """Take no more."""
        self._feed.streams.discard(self)
        self._feed.on_taken()

    def _wants(self, entry: _Entry) -> bool:
        if entry.passing:
            return self.at >= self._since
        return entry.last or entry.sequence > self._after
