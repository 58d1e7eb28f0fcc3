"""Watching a folder: waits for files to be whole, runs each as a job of its own, and keeps the ledger."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.publish import Publisher
from pipelines.watch import Ledger, Quiet, Stamp, content_digest, scan, stamp_of
from schemas.errors import Disposition
from schemas.pipeline import PipelineSpec
from workers.local import Outcome, begin_job, kind_of, run_job

Say = Callable[[str], None]
AT_ONCE = 16  # files in hand: enough to keep a fleet busy with images, few enough to begin again after a crash
PUBLISH_AT_ONCE = 2
RESCAN_S = 5.0  # for folders whose changes nobody tells of (network file systems)


class FolderWatch:
    """Runs every file of `folder` through a pipeline once; `run` until cancelled."""

    def __init__(
        self,
        broker: Broker,
        publisher: Publisher,
        spec: PipelineSpec,
        folder: Path,
        out: Path,
        ledger: Ledger,
        quiet_s: float,
        say: Say,
    ) -> None:
        self._broker = broker
        self._publisher = publisher
        self._spec = spec
        self._folder = folder
        self._out = out
        self._ledger = ledger
        self._quiet_s = quiet_s
        self._say = say
        self._quiet = Quiet(quiet_s)
        self._in_hand: set[str] = set()  # names, and the digests of their contents
        self._room = asyncio.Semaphore(AT_ONCE)
        self._publishing = asyncio.Semaphore(PUBLISH_AT_ONCE)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch and work. Raises OutputError when results cannot be written or the folder is gone."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice())
            while True:
                self._changed.clear()
                stamps = await asyncio.to_thread(scan, self._folder, self._out)
                new = {
                    name: stamp
                    for name, stamp in stamps.items()
                    if name not in self._in_hand and not self._ledger.knows(name, stamp)
                }
                for name in self._quiet.ready(new, time.monotonic()):
                    self._in_hand.add(name)
                    tasks.create_task(self._take(name, new.pop(name)))
                await self._pause(self._quiet_s / 4 if new else RESCAN_S, at_change=not new)

    async def _pause(self, seconds: float, at_change: bool) -> None:
        if not at_change:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _notice(self) -> None:
        """Have the system tell of changes, so that an idle watch costs nothing and a new file waits for nobody."""
        from watchfiles import awatch

        async for _ in awatch(self._folder, watch_filter=None, debounce=200, ignore_permission_denied=True):
            self._changed.set()

    async def _take(self, name: str, stamp: Stamp) -> None:
        try:
            async with self._room:
                await self._process(name, stamp)
        finally:
            self._in_hand.discard(name)

    async def _process(self, name: str, stamp: Stamp) -> None:
        path = self._folder / name
        try:
            digest = await asyncio.to_thread(content_digest, path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"{name}: cannot read it: {error.strerror}")
            self._ledger.record(name, stamp, "", failures=(str(error),))
            return
        if stamp_of(path) != stamp:
            return  # what has this digest is gone; looked at again when it is quiet
        if digest in self._in_hand:
            return  # its twin is being worked on; looked at again after that
        if (before := self._ledger.outcome(digest)) is not None:
            if before.name != name:
                self._say(f"{name}: the same content as {before.name}, done before")
            self._ledger.same(name, stamp, digest)
            return
        self._in_hand.add(digest)
        try:
            outcome = await self._run(name, path, digest)
        finally:
            self._in_hand.discard(digest)
        self._conclude(name, stamp, digest, outcome)

    async def _run(self, name: str, path: Path, digest: str) -> Outcome:
        """Run one file as a job of its own; its id is made of its content."""
        content = hashlib.sha256(f"{self._spec.revision}/{digest}".encode()).hexdigest()[:20]
        job = self._publisher.ref(content)
        target = self._out / f"{name}.{self._spec.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        outcome = Outcome(path.name, job, target, [path], images=kind_of(path) == "image", source=content)
        await begin_job(self._publisher, outcome, again=True)
        collector = Collector(self._broker, self._spec)
        await collector.open({outcome.job: target})
        try:
            await run_job(self._publisher, collector, outcome, self._publishing)
        finally:
            await collector.close()
        return outcome

    def _conclude(self, name: str, stamp: Stamp, digest: str, outcome: Outcome) -> None:
        """Write the ledger, unless the file changed under our hands or the fault is not its own."""
        error, done = outcome.error, outcome.done
        if stamp_of(self._folder / name) != stamp:
            self._say(f"{name}: it changed while it was read; taken again when it is quiet")
        elif error is not None:
            self._say(f"{name}: {error}")
            if error.disposition is Disposition.REJECT:
                self._ledger.record(name, stamp, digest, failures=(str(error),))
        elif done is not None:
            files = tuple(str((outcome.target.parent / file).relative_to(self._out)) for file in done.files)
            self._ledger.record(name, stamp, digest, files, done.failures)
            missing = f", {len(done.failures)} failures: {done.failures[0]}" if done.failures else ""
            self._say(f"{name}: {', '.join(files)} ({done.frames:,} frames, {outcome.seconds:.1f} s{missing})")
