"""A rolling upgrade of a fleet that works, and the way back: workers are replaced one by one while jobs run.

TEST_UPGRADE_FROM names the git revision of the other version.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import nats
import pytest
from nats.aio.msg import Msg

from pipelines.server import EmbeddedServer
from tests.clips import Clip, make_clip
from tests.simulated import PACE, write_model
from tests.versions import HERE, Version, version_of

FROM = os.environ.get("TEST_UPGRADE_FROM") or "b8f7232"
WORKERS = 3
PACED = """
name = "paced"
media = "video"
segment_s = 0.2

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
size = [24, 32]
layout = "gray"

[[stage]]
kind = "infer"
model = "simulated"

[[stage]]
kind = "encode"
format = "npz"
"""


class Worker:
    """`rigflow worker` of a version, with a log of its own."""

    def __init__(self, version: Version, url: str, log: Path) -> None:
        self.version, self.log = version, log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                version.command("worker", "--name", log.stem, "--nats", url),
                cwd=version.tree,
                env=version.environment(**{PACE: "20", "RIGFLOW_CACHE": str(log.with_suffix(""))}),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def until_ready(self) -> None:
        def ready() -> bool:
            assert self._process.poll() is None, self.log.read_text()
            return "rigflow worker on" in self.log.read_text()

        eventually(ready)

    def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        code = self._process.wait(300)
        assert code == (-number if number is signal.SIGKILL else 0), f"ended with {code}: {self.log.read_text()}"

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Observer:
    """Counts the parts and the ends of all jobs as they are published, repeats too."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.parts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.begun: set[str] = set()

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._url)
        await self._client.subscribe("rigflow.results.>", cb=self._hear)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def _hear(self, message: Msg) -> None:
        headers, job = message.headers or {}, message.subject.rpartition(".")[2]
        if headers.get("Rigflow-Type") == "part":
            self.parts[headers["Nats-Msg-Id"]] += 1
            self.begun.add(job)
        elif headers.get("Rigflow-Type") == "done":
            self.ends[job] += 1

    async def until_begun(self, job: str) -> None:
        """Wait for the job's first part."""
        deadline = time.monotonic() + 300
        while job not in self.begun:
            assert time.monotonic() < deadline, f"no part of {job}"
            await asyncio.sleep(0.05)


class Rolling:
    """A fleet of one version that becomes one of another, while jobs of both are published."""

    def __init__(self, old: Version, new: Version, url: str, folder: Path) -> None:
        self.old, self.new, self.url, self.folder = old, new, url, folder
        self.workers: list[Worker] = []
        self.jobs: dict[str, tuple[Path, str]] = {}  # id -> input, pipeline
        (folder / "paced.toml").write_text(PACED)
        write_model(folder)
        self.film = make_clip(folder, Clip(frames=600))
        self.sound = make_clip(folder, Clip(frames=60, sound="aac", seed=1))

    def start(self, version: Version) -> Worker:
        worker = Worker(version, self.url, self.folder / f"w{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    async def publish(self, version: Version, label: str, seen: Observer) -> None:
        """Publish a job of each pipeline; returns when the longer one has its first part."""
        for pipeline, film in (("upscale2x", self.sound), (str(self.folder / "paced.toml"), self.film)):
            job = f"{label}-{Path(pipeline).stem}"
            self.jobs[job] = (film, pipeline)
            await asyncio.to_thread(version.run, "publish", pipeline, film, "--job", job, "--nats", self.url)
        await seen.until_begun(job)

    async def roll(self) -> None:
        async with Observer(self.url) as seen:
            first = [self.start(self.old) for _ in range(WORKERS)]
            for worker in first:
                await asyncio.to_thread(worker.until_ready)
            await self.publish(self.old, "old-on-old", seen)
            for number, worker in enumerate(first):
                by = (self.new, self.old)[number % 2]
                await self.publish(by, f"{'new' if by is self.new else 'old'}-{number}", seen)
                await asyncio.to_thread(worker.end, signal.SIGKILL if number == 1 else signal.SIGTERM)
                await asyncio.to_thread(self.start(self.new).until_ready)
            await self.look()
            await self.publish(self.old, "old-on-new", seen)
            await asyncio.to_thread(self.collect)
            assert seen.ends == dict.fromkeys(self.jobs, 1)
            self.parts = seen.parts

    async def look(self) -> None:
        """Both versions can say what the fleet does, and can read all that they find."""
        for version in (self.old, self.new):
            for words in (("status", "--json"), ("jobs", "list", "--json"), ("usage", "--json"), ("topology", "plan")):
                await asyncio.to_thread(version.run, *words, "--nats", self.url)

    def collect(self) -> None:
        """Each job's results by the version that did not publish it, equal to those of either version alone."""
        expected = {film: self.alone(film, pipeline) for film, pipeline in self.jobs.values()}
        for job, (film, _) in self.jobs.items():
            by = self.new if job.startswith("old") else self.old
            out = self.folder / "out" / job
            by.run("results", job, "--follow", "--out", out, "--nats", self.url)
            assert files_in(out) == expected[film], job
        jobs = json.loads(self.new.run("usage", "--by", "pipeline", "--json", "--nats", self.url))
        assert sum(each["jobs"] for each in jobs) == len(self.jobs)

    def alone(self, film: Path, pipeline: str) -> dict[str, bytes]:
        made = []
        for number, version in enumerate((self.old, self.new)):
            out = self.folder / "alone" / f"{film.stem}-{number}"
            version.run("run", pipeline, film, "--out", out, RIGFLOW_CACHE=str(self.folder / f"alone-{number}"))
            made.append(files_in(out))
        assert made[0] == made[1], f"{pipeline} gives another answer in the other version"
        return made[0]

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "way-back"])
def test_workers_are_replaced_one_by_one_while_both_versions_publish(back: bool, tmp_path: Path) -> None:
    other = version_of(FROM, tmp_path / "tree")
    old, new = (HERE, other) if back else (other, HERE)
    server = EmbeddedServer()
    server.start()
    rolling = Rolling(old, new, server.url, tmp_path)
    try:
        asyncio.run(rolling.roll())
    finally:
        rolling.stop()
        server.stop()
    logs = "".join(worker.log.read_text() for worker in rolling.workers)
    assert "cannot be read" not in logs
    repeats = sum(count - 1 for count in rolling.parts.values())
    print(f"\n{len(rolling.jobs)} jobs, {len(rolling.parts)} parts, {repeats} of them published again")
