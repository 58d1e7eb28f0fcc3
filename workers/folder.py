"""Watches a folder: waits until files are complete, runs each as a job, and records the results in the ledger."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.media.medium import Input, PipelineMedia
from engines.outputs.names import OutputNames, Wanted
from engines.outputs.template import OutTemplate
from pipelines.client import Client
from pipelines.collect import Collector
from pipelines.jetstream import Gone
from schemas.errors import BrokerError, Disposition, OutputError, RigflowError
from schemas.jobs import JobRef, Priority
from schemas.pipeline import PipelineSpec
from schemas.text import count, without_path
from workers.inputs import JobOutcome
from workers.ledger import Ledger
from workers.media_folder import recognised
from workers.media_names import MEDIA_TYPES, is_media_by_name
from workers.run import as_ours, open_job, run_job
from workers.waits import Repair, explained, repaired
from workers.watched import ALL_FILES, Patterns, Quiet, Stamp, content_digest, scan, stamp_of

Report = Callable[..., None]  # of a line, and of what it says of a file: `file`, `state` and more
AT_ONCE = 16  # files in process: enough to keep a fleet busy with images, few enough to repeat after a crash
PUBLISH_AT_ONCE = 2
RESCAN_S = 5.0  # for folders without change notifications (network file systems)
LEFT = "left alone"  # the state of a file that is not processed, and is no failure
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 120.0  # before a file is tried again after a temporary error


@dataclass(slots=True)
class _Trouble:
    """A temporary error of one file: its text, and when the file is tried again."""

    text: str
    pause_s: float
    again_s: float


class FolderWatch:
    """Runs every file of `folder` once; `report` gets a line of each with its facts, and others without facts."""

    def __init__(
        self,
        client: Client,
        spec: PipelineSpec,
        priority: Priority,
        folder: Path,
        out: Path,
        ledger: Ledger,
        names: OutputNames,
        quiet_s: float,
        report: Report,
        repair: Repair,
        patterns: Patterns = ALL_FILES,
        template: OutTemplate | None = None,
    ) -> None:
        self._template, self._patterns = template, patterns
        self._client, self._broker = client, client.broker
        self._spec = spec
        self._priority = priority
        self._folder, self._out = folder, out
        self._ledger, self._names = ledger, names
        self._quiet_s = quiet_s
        self._report, self._repair = report, repair
        self._quiet = Quiet(quiet_s)
        self._in_process: set[str] = set()  # names
        self._contents: dict[str, asyncio.Event] = {}  # by digest of the files in process; set when they are finished
        self._jobs: list[JobRef] = []
        self._moved: Callable[[], None] = lambda: None
        self._troubles: dict[str, _Trouble] = {}  # by name
        self._skipped: dict[str, str] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._publishing = asyncio.Semaphore(PUBLISH_AT_ONCE)
        self._changed = asyncio.Event()

    @property
    def has_work(self) -> bool:
        """Whether files are in process, or are tried again later."""
        return bool(self._in_process or self._troubles)

    async def run(self) -> None:
        """Watch until cancelled. An error of one file does not affect others.

        Raises BrokerError when refused, UsageError when a template gives two media that are there one path.
        """
        if self._template is not None:
            found = await asyncio.to_thread(scan, self._folder, self._out, self._patterns)
            self._template.check(filter(is_media_by_name, sorted(found.files)), self._spec.name)
        async with (
            explained(self._broker, self._report, self._jobs.copy, self._repair) as self._moved,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._notice())
            while True:
                self._changed.clear()
                new = await self._look()
                for name in self._quiet.ready(new, time.monotonic()):
                    self._in_process.add(name)
                    tasks.create_task(self._take(name, new.pop(name)))
                await self._pause(self._quiet_s / 4 if new else RESCAN_S, at_change=not new)

    async def _look(self) -> dict[str, Stamp]:
        """The files that have to be processed now or soon."""
        found = await asyncio.to_thread(scan, self._folder, self._out, self._patterns)
        for name, reason in found.skipped.items():
            if self._skipped.get(name) != reason:
                file = str(self._folder) if name == "." else name
                self._report(f"{file}: left alone: {reason}", file=file, state=LEFT, reason=reason)
        self._skipped = found.skipped
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in found.files}
        now_s = time.monotonic()
        later = {name for name, trouble in self._troubles.items() if trouble.again_s > now_s}
        return await asyncio.to_thread(self._ledger.news, found.files, self._in_process | later)

    async def _pause(self, seconds: float, at_change: bool) -> None:
        if not at_change:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _notice(self) -> None:
        """Get change notifications of the system, so that an idle watch costs little and a new file is seen at once."""
        from watchfiles import awatch

        try:
            async for _ in awatch(self._folder, watch_filter=None, debounce=200, ignore_permission_denied=True):
                self._changed.set()
        except (OSError, RuntimeError) as error:  # for example no inotify instance or watch is left
            self._report(f"no change notifications ({error}): scanning every {RESCAN_S:.0f} s instead")

    async def _take(self, name: str, stamp: Stamp) -> None:
        try:
            async with self._slots:
                twin = await self._process(name, stamp)
            if twin is not None:
                await twin.wait()
                self._changed.set()
        except BrokenPipeError:
            raise  # the reader of our output has ended
        except Exception as error:
            rigflow_error = as_ours(error)
            if isinstance(rigflow_error, BrokerError) and self._broker.connection.closed:
                raise rigflow_error from error
            made = await repaired(self._broker, self._repair) if isinstance(rigflow_error, Gone) else ""
            self._retry_later(name, made or str(rigflow_error))
        else:
            self._troubles.pop(name, None)
        finally:
            self._in_process.discard(name)

    def _retry_later(self, name: str, text: str) -> None:
        """Report the error of a file once, and try the file again after growing pauses."""
        known = self._troubles.get(name)
        pause_s = FIRST_PAUSE_S if known is None else min(LONGEST_PAUSE_S, 2 * known.pause_s)
        if known is None or known.text != text:
            self._report(f"{name}: {text}; tried again later", file=name, state="waits", reason=text)
        self._troubles[name] = _Trouble(text, pause_s, time.monotonic() + pause_s)

    async def _process(self, name: str, stamp: Stamp) -> asyncio.Event | None:
        """Process a file. If its content is in process under another name, returns the event to wait for first."""
        path = self._folder / name
        try:
            digest = await _digest_of(path)
        except FileNotFoundError:
            return None
        if stamp_of(path) != stamp:
            return None  # it changed after the digest was made; it is processed when it is quiet
        if digest in self._contents:
            return self._contents[digest]
        self._contents[digest] = asyncio.Event()
        try:
            if not await self._was_done(name, stamp, digest):
                await self._conclude(name, stamp, digest, await self._run(name, path, digest))
        finally:
            self._contents.pop(digest).set()
        return None

    async def _was_done(self, name: str, stamp: Stamp, digest: str) -> bool:
        """Whether this content has a result, under this name or that of another file that still exists.

        A renamed file is processed again: its old name may have been a temporary one.
        """
        before = await asyncio.to_thread(self._ledger.outcome, digest)
        if before is None:
            return False
        copy = before.name != name
        if copy and not (self._ledger.has(before.name, digest) and (self._folder / before.name).exists()):
            return False
        await asyncio.to_thread(self._ledger.all_same, {name: (stamp, digest)})
        if copy:
            text = f"the same content as {before.name}, processed before"
            self._report(f"{name}: {text}", file=name, state="known", reason=text)
        return True

    async def _run(self, name: str, path: Path, digest: str) -> JobOutcome:
        """Run one file as a job of its own; its id is made of its content. Raises OutputError."""
        content = hashlib.sha256(f"{self._spec.revision}/{digest}".encode()).hexdigest()[:20]
        real = await asyncio.to_thread(os.path.realpath, path)
        ref = self._client.ref(self._spec, content, self._priority)
        outcome = JobOutcome(path.name, ref, [path], [real], source=content)
        await asyncio.to_thread(self._reserve, outcome, name)
        try:
            try:
                given = PipelineMedia(self._spec), self._spec, Input(path, path.name)
                outcome.kind = (await asyncio.to_thread(recognised, *given)).kind
            except RigflowError as error:
                outcome.error = error
                return outcome
            await open_job(self._client, self._spec, outcome, again=True)
            compare = partial(outcome.compare, self._names)
            collector = Collector(self._broker, self._spec, lambda *_: self._moved(), compare=compare)
            await collector.open({outcome.job: outcome.target}, {outcome.job: outcome.real})
            self._jobs.append(outcome.job)
            try:
                await run_job(collector, outcome, self._publishing)
            finally:
                self._jobs.remove(outcome.job)
                self._moved()
                await collector.close()
        finally:
            await asyncio.to_thread(self._names.release, outcome.target)
        return outcome

    def _reserve(self, outcome: JobOutcome, name: str) -> None:
        """Reserve the path for the result of a file, in the same subfolder."""
        exact = self._template.target(name, self._spec.name) if self._template else ""
        folder = self._out if exact else self._out / os.path.dirname(name)
        wanted = Wanted(
            folder,
            os.path.basename(name),
            self._spec.name,
            exact=exact,
            owned=lambda target: self._ledger.owner(self._relative(target)) not in ("", name),
        )
        outcome.reserve(self._names, wanted)
        if not self._ledger.target(name):
            self._ledger.claim(name, self._relative(outcome.target))

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self._out)

    async def _conclude(self, name: str, stamp: Stamp, digest: str, outcome: JobOutcome) -> None:
        """Record the result in the ledger, unless the file changed while it was read or its error is temporary.

        A file that was moved away meanwhile was read completely if nothing failed.
        """
        error, done = outcome.error, outcome.done
        now = stamp_of(self._folder / name)
        if now is None and not outcome.ok:
            self._report(f"{name}: it was removed while it was read", file=name, state=LEFT, reason="removed")
        elif now not in (None, stamp):
            outcome.delete_files()  # they are of a content that never was
            text = "it changed while it was read; it is processed again when it is quiet"
            self._report(f"{name}: {text}", file=name, state="waits", reason=text)
        elif error is not None:
            await self._failed(name, stamp, digest, error, outcome.kind)
        elif done is not None:
            files = tuple(self._relative(outcome.target.parent / file) for file in done.files)
            await asyncio.to_thread(self._ledger.record, name, stamp, digest, files, done.failures)
            paths, why = [str(self._out / file) for file in files], next(iter(done.failures), "")
            did = count(done.frames, "frame") + (f", {done.duration_s:.1f} s" if done.duration_s else "")
            did += outcome.earlier.words + (f", {count(done.failed, 'failure')}: {why}" if why else "")
            said = f"{', '.join(paths)} ({did})" if paths else f"{done.state}: {without_path(name, why)}"
            facts = {"job": done.job.id, "files": paths, "frames": done.frames, "failures": done.failures}
            self._report(f"{name}: {said}", file=name, state=done.state.value, **facts)

    async def _failed(self, name: str, stamp: Stamp, digest: str, error: RigflowError, kind: str) -> None:
        """Record an error of the media; one of the disk or the broker is raised, and the file is tried again.

        A file whose name is not that of media is left alone; where it was taken for text or arrays, its name said so.
        """
        if error.disposition is not Disposition.REJECT or isinstance(error, OutputError):
            raise error
        if await _digest_of(self._folder / name) != digest:
            return
        foreign = kind in ("", *MEDIA_TYPES) and not is_media_by_name(name, self._spec.media)
        await asyncio.to_thread(self._ledger.record, name, stamp, digest, (), () if foreign else (str(error),))
        state, reason = LEFT if foreign else "failed", without_path(self._folder / name, str(error))
        self._report(f"{name}: {state}: {reason}", file=name, state=state, reason=reason)


async def _digest_of(path: Path) -> str:
    """`content_digest` in a thread. Raises RigflowError when the file cannot be read, FileNotFoundError."""
    try:
        return await asyncio.to_thread(content_digest, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RigflowError(f"cannot read it: {error.strerror}") from error
