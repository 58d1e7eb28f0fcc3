"""Many streams of one job at one gateway: one reading at the broker, every event for each, and slow ones are warned."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pipelines.broker import Broker  # noqa: E402
from pipelines.client import Client  # noqa: E402
from pipelines.job import Job  # noqa: E402
from pipelines.job_events import Progress  # noqa: E402
from pipelines.job_records import JobRecord  # noqa: E402
from schemas.jobs import JobState, Key  # noqa: E402
from schemas.parts import PartHeader  # noqa: E402
from schemas.results import Done, Failure  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from schemas.subjects import HEADER_PART, HEADER_TYPE  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _registered, events_of  # noqa: E402

STREAMS = 60


@asynccontextmanager
async def a_job(settings: Settings, hosted: bool = True) -> AsyncIterator[tuple[Job, Broker]]:
    """A job that no worker takes: a test makes its results. Unless it is `hosted`, none is to collect it either."""
    await _registered(settings)
    async with Client.connected(settings) as client:
        job = await client.submit("simulated", b"x", job="many")
        if not hosted:
            record = await JobRecord.read(client.broker, job.ref)
            assert record is not None
            await record.change(hosted=False)
        yield job, client.broker


async def make_part(broker: Broker, job: Job, number: int) -> None:
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader(0, number, 0, True, False, 1, 0).header()}
    await broker.publish(broker.names.results(job.ref), b"x", f"part-{number}", headers)


async def make_last_part(broker: Broker, job: Job) -> None:
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader(0, 0, 0, True, True, 1, 0).header()}
    await broker.publish(broker.names.results(job.ref), b"x", "last", headers)


async def end(broker: Broker, job: Job) -> None:
    done = Done(job=job.ref, segments=1, frames=1, lost=0, digest="d")
    await broker.publish(broker.names.results(job.ref), done.encode(), "done", {HEADER_TYPE: "done"})


async def consumers(broker: Broker) -> int:
    """Consumers of the streams of results and of jobs."""
    streams = (broker.names.results_stream, f"KV_{broker.names.jobs}")
    infos = [await broker.api(f"STREAM.INFO.{stream}") for stream in streams]
    return sum(int(info["state"]["consumer_count"]) for info in infos)


@pytest.mark.parametrize("late", [False, True])
async def test_of_a_job_that_nobody_collects_it_is_said_at_last_that_it_is_complete(
    settings: Settings, late: bool
) -> None:
    async with a_job(settings, False) as (job, broker), asyncio.timeout(60), aclosing(job.events()) as events:
        if not late:
            await make_last_part(broker, job)
        async for event in events:
            if isinstance(event, Progress) and event.manifest.state is JobState.DONE:
                return
            if late and isinstance(event, Progress):  # a part a moment before must not hide the last one
                late = False
                await make_part(broker, job, 1)
                await make_last_part(broker, job)
    pytest.fail("the events end before that")


async def test_a_job_that_a_worker_collects_is_done_once_its_files_are_there(settings: Settings) -> None:
    async with a_job(settings) as (job, broker), Broker.connected(settings, "other") as other:
        await make_last_part(broker, job)
        found = await Client(other).find("many")
        now = await found.progress()
        assert (now.state, now.segments_done) == (JobState.PUBLISHING, 1)
        assert (await found.cancel()).state is JobState.CANCELLED


async def test_many_streams_of_a_job_are_one_reading_and_each_has_every_event(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.job_events.LATER_S", 0.1)
    async with a_job(settings) as (job, broker):
        for number in range(5):
            await make_part(broker, job, number)
        before = await consumers(broker)
        limits = httpx.Limits(max_connections=None)
        with Gateway(settings) as gateway:
            idle = await consumers(broker) - before
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits) as http:
                open_ = asyncio.Semaphore(0)

                async def follow(after: int) -> list[tuple[str, int, dict[str, Any]]]:
                    headers = {"Last-Event-ID": str(after)} if after else {}
                    async with http.stream("GET", f"{JOBS}/many/events", headers=headers) as stream:
                        lines = []
                        async for line in stream.aiter_lines():
                            lines.append(line)
                            if len(lines) == 1:
                                open_.release()
                    return events_of(lines)

                following = [asyncio.create_task(follow(2 * (number % 2))) for number in range(STREAMS)]
                for _ in range(STREAMS):
                    await open_.acquire()
                while (found := await consumers(broker) - before - idle) < 2:  # of results, and of manifests
                    await asyncio.sleep(0.05)
                for number in range(5, 9):
                    await make_part(broker, job, number)
                await end(broker, job)
                for number, events in enumerate(await asyncio.gather(*following)):
                    ids = [each[1] for each in events if each[0] in ("part", "done")]
                    segments = [each[2]["segment"] for each in events if each[0] == "part"]
                    first = 2 * (number % 2)
                    assert segments == list(range(first, 9))
                    assert ids == sorted(set(ids))
                    assert (events[0][0], events[-1][0]) == ("progress", "done")
                    assert events[-1][2]["digest"] == "d"
                assert found == 2
                while await consumers(broker) - before - idle:
                    await asyncio.sleep(0.01)


async def test_a_slow_stream_ends_in_words_while_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.feeds.FEED_BYTES", 50_000)
    async with a_job(settings) as (job, broker):
        gateway = Gateway(settings)
        gateway.listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        with gateway, socket.create_connection(gateway.listening.getsockname()) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            slow.sendall(f"GET {JOBS}/many/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert await asyncio.to_thread(slow.recv, 15) == b"HTTP/1.1 200 OK"
            async with (
                httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
                http.stream("GET", f"{JOBS}/many/events") as stream,
            ):
                lines = stream.aiter_lines()
                assert await anext(lines) == "event: progress"
                failures = 150
                for number in range(failures):
                    key = Key(job=job.ref, segment=number)
                    failure = Failure(key=key, stage="infer", error="e" * 4000, at_s=time.time())
                    body = failure.encode()
                    await broker.publish(broker.names.results(job.ref), body, f"f{number}", {HEADER_TYPE: "failure"})
                await end(broker, job)
                kinds = [line async for line in lines if line.startswith("event: ")]
                assert kinds.count("event: failure") == failures
                assert kinds[-1] == "event: done"
            slow.settimeout(30)
            rest = b"".join(iter(lambda: slow.recv(1 << 16), b"")).decode()
            last = [each for each in rest.split("\n\n") if "event: " in each][-1]
            assert "event: behind" in last
            assert "Last-Event-ID" in last
            assert 0 < rest.count("event: failure") < failures
