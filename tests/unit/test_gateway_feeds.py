"""One reading of a job's events for many streams: order, completeness, bounds, and what slow streams get."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import feeds as module
from gateway.feeds import Behind, Feeds, Stream
from pipelines.job_events import Ended, Event, PartMade, Progress, TextWritten
from schemas.errors import BrokerError
from schemas.jobs import JobRef, Key, Manifest
from schemas.parts import PartHeader
from schemas.results import Delta, Done

REF = JobRef(id="job", tenant="main", pipeline="p", revision="r")
KNOWN = Manifest(job=REF, name="clip.mp4")
PART = PartHeader(0, 0, 0, False, False, 1, 0)
LINE = 100  # bytes


def part(number: int) -> PartMade:
    return PartMade(number, PART)


def line_of(_: str, event: Event) -> bytes:
    name = type(event).__name__ if isinstance(event, Progress | TextWritten) else str(event.sequence)
    return name.ljust(LINE - 1, ".").encode() + b"\n"


def names(lines: bytes) -> list[str]:
    return [line.rstrip(".") for line in lines.decode().splitlines()]


@dataclass
class Events:
    """A job of which events come as a test says: each reading has all but the text from the beginning."""

    manifest: Manifest = KNOWN
    log: list[Event] = field(default_factory=list)
    readings: int = 0
    open: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    @property
    def ref(self) -> JobRef:
        return self.manifest.job

    @property
    def id(self) -> str:
        return self.ref.id

    async def events(self, found_now: bool) -> AsyncGenerator[Event, None]:
        assert found_now
        self.readings += 1
        self.open += 1
        at, since = 0, len(self.log)
        try:
            while True:
                while at < len(self.log):
                    event, at = self.log[at], at + 1
                    if at > since or not isinstance(event, TextWritten):
                        yield event
                    if isinstance(event, Ended):
                        return
                if self.error is not None:
                    raise self.error
                self.more.clear()
                await self.more.wait()
        finally:
            self.open -= 1

    def put(self, *events: Event) -> None:
        self.log += events
        self.more.set()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def joined(feeds: Feeds, job: Events, after: int = 0) -> Stream:
    return feeds.join(job, after)  # type: ignore[arg-type]


async def test_streams_that_begin_at_any_time_have_every_event_once_and_one_reading() -> None:
    feeds, job = Feeds(line_of), Events()
    first = joined(feeds, job)
    await settled()
    job.put(Progress(KNOWN), part(3), Progress(KNOWN), TextWritten(delta()), part(5))
    await settled()
    assert names(first.take()) == ["Progress", "3", "Progress", "TextWritten", "5"]
    late, later = joined(feeds, job), joined(feeds, job, after=3)
    assert names(late.take()) == ["Progress", "3", "5"], "the text was written before, and progress is that of now"
    assert names(later.take()) == ["Progress", "5"]
    job.put(TextWritten(delta()), part(9), Ended(11, done()))
    await settled()
    for stream in (first, late, later):
        assert names(stream.take()) == ["TextWritten", "9", "11"]
        assert stream.is_over
    assert (job.readings, job.open, len(feeds.feeds)) == (1, 0, 1)


async def test_the_last_stream_that_leaves_ends_the_reading() -> None:
    feeds, job = Feeds(line_of), Events()
    one, other = joined(feeds, job), joined(feeds, job)
    job.put(part(1))
    await settled()
    one.leave()
    await settled()
    assert (job.open, feeds.nbytes) == (1, LINE)
    other.leave()
    await settled()
    assert (job.open, feeds.nbytes, feeds.feeds) == (0, 0, [])


async def test_a_job_that_is_over_is_read_again_only_where_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds, job = Feeds(line_of), Events()
    joined(feeds, job)
    job.put(part(1), Ended(2, done()))
    await settled()
    assert names(joined(feeds, job).take()) == ["1", "2"]
    assert job.readings == 1
    job.manifest = KNOWN.model_copy(update={"frames": 7})
    again = joined(feeds, job)
    await settled()
    assert (job.readings, again.is_over) == (2, False)
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    feeds, job = Feeds(line_of), Events()
    stream = joined(feeds, job)
    job.put(Ended(2, done()))
    await settled()
    assert len(feeds.feeds) == 1, "its stream has not taken all"
    assert names(stream.take()) == ["2"]
    stream.leave()
    assert (feeds.feeds, feeds.nbytes) == ([], 0)


async def test_a_job_that_is_begun_anew_has_a_feed_of_its_own() -> None:
    feeds, job = Feeds(line_of), Events()
    joined(feeds, job)
    job.put(part(1))
    await settled()
    anew = Events(KNOWN.model_copy(update={"job": REF.model_copy(update={"generation": 2})}), [part(7)])
    stream = joined(feeds, anew)
    await settled()
    assert (names(stream.take()), anew.readings) == (["7"], 1)


@pytest.mark.parametrize("error", [BrokerError("the broker is away"), KeyError("unexpected")], ids=["known", "not"])
async def test_streams_end_where_reading_fails_and_the_next_one_reads_anew(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    feeds, job = Feeds(line_of), Events()
    stream = joined(feeds, job)
    job.put(part(1))
    await settled()
    job.error = error
    job.put(part(2))
    await settled()
    assert names(stream.take()) == ["1", "2"]
    assert stream.is_over
    assert "the events of job job end" in caplog.text
    job.error = None
    joined(feeds, job)
    await settled()
    assert job.readings == 2
    stream.leave()
    await settled()
    assert len(feeds.feeds) == 1


async def test_a_slow_stream_holds_no_other_and_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEED_BYTES", 10 * LINE)
    monkeypatch.setattr(module, "AHEAD_BYTES", 3 * LINE)
    feeds, job = Feeds(line_of), Events()
    slow, fast = joined(feeds, job), joined(feeds, job)
    job.put(*map(part, range(1, 101)))
    got = list[str]()
    while len(got) < 100:
        await settled()
        assert feeds.nbytes <= 10 * LINE
        got += names(fast.take())
    assert got == [str(number) for number in range(1, 101)]
    with pytest.raises(Behind):
        slow.take()
    slow.leave()
    assert feeds.feeds[0].dropped < 100
    again = joined(feeds, job, after=feeds.feeds[0].dropped)
    assert job.readings == 1, "all that it has not seen is kept"
    assert names(again.take())[-1] == str(feeds.feeds[0].dropped + 3)
    joined(feeds, job)
    await settled()
    assert job.readings == 2, "one from the beginning is read anew"


async def test_one_stream_alone_is_never_behind_and_what_is_read_ahead_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FEED_BYTES", 5 * LINE)
    monkeypatch.setattr(module, "AHEAD_BYTES", 3 * LINE)
    feeds, job = Feeds(line_of), Events()
    alone = joined(feeds, job)
    job.put(*map(part, range(1, 50)), Ended(50, done()))
    got = list[str]()
    while not alone.is_over:
        await settled()
        assert feeds.feeds[0].end <= len(got) + 4
        assert feeds.nbytes <= 7 * LINE
        got += names(alone.take())
    assert got == [str(number) for number in range(1, 51)]


async def test_many_jobs_keep_no_more_than_all_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL_BYTES", 40 * LINE)
    feeds = Feeds(line_of)
    jobs = [Events(KNOWN.model_copy(update={"job": REF.model_copy(update={"id": f"job-{n}"})})) for n in range(20)]
    streams = [joined(feeds, job) for job in jobs]
    for number in range(1, 30):
        for job, stream in zip(jobs, streams, strict=True):
            job.put(part(number))
            await settled()
            assert names(stream.take()) == [str(number)]
            assert feeds.nbytes <= 41 * LINE
    for stream in streams:
        stream.leave()
    await settled()
    assert (feeds.nbytes, feeds.feeds) == (0, [])


@given(
    st.lists(st.sampled_from(["event", "text", "take-0", "take-1", "take-2", "join", "leave"]), max_size=120),
    st.integers(2, 12),
)
def test_whatever_the_order_each_stream_has_all_or_gets_a_warning(steps: list[str], kept: int) -> None:
    asyncio.run(_random(steps, kept))


async def _random(steps: list[str], kept: int) -> None:
    before = module.FEED_BYTES, module.AHEAD_BYTES
    module.FEED_BYTES, module.AHEAD_BYTES = kept * LINE, 2 * LINE
    feeds, job, number = Feeds(line_of), Events(), 0
    streams: list[tuple[Stream, list[str], int]] = []
    try:
        for step in steps:
            if step == "event":
                number += 1
                job.put(part(number))
            elif step == "text":
                job.put(TextWritten(delta()))
            elif step == "join":
                after = number // 2 if len(streams) % 2 else 0
                streams.append((joined(feeds, job, after), [], after))
            elif streams and step == "leave":
                streams.pop()[0].leave()
            elif streams:
                stream, got, _ = streams[int(step[-1]) % len(streams)]
                try:
                    got += [name for name in names(stream.take()) if name.isdigit()]
                except Behind:
                    streams = [each for each in streams if each[0] is not stream]
                    stream.leave()
            await settled()
            for _, got, after in streams:
                assert got == [str(each) for each in range(after + 1, after + 1 + len(got))]
    finally:
        module.FEED_BYTES, module.AHEAD_BYTES = before
        for stream, _, _ in streams:
            stream.leave()
        await settled()


def delta() -> Delta:
    return Delta(key=Key(job=REF, segment=0, part=0), generation=0, row=0, number=0, text="word")


def done() -> Done:
    return Done(job=REF, segments=1, frames=1, lost=0)
