"""The work of `rigflow run` with a folder: its files in groups, each a job; results of a finished group stay."""

import asyncio
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from engines.outputs.template import OutTemplate
from pipelines.client import Client
from pipelines.collect import Collector
from schemas.errors import RigflowError
from schemas.fields import clean_name
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.text import without_path
from workers.definitions import Models, pinned, register, repair
from workers.inputs import JobOutcome
from workers.item_results import ItemResults
from workers.ledger import Ledger, ledger_path
from workers.media_folder import Entry, MediaFolder
from workers.media_names import is_media_by_name
from workers.placing import Files, made_of, name_of, place, place_whole, token
from workers.run import PUBLISH_AT_ONCE, ProgressListener, as_ours, open_job, run_job, unfinished
from workers.tally import Tally
from workers.waits import both, explained

AT_ONCE = 8  # groups in process
_RESULT = "result"


@dataclass(frozen=True, slots=True)
class _Work:
    """What all jobs of a run share."""

    client: Client
    spec: PipelineSpec
    priority: Priority
    listener: ProgressListener
    moved: Callable[[], None]


class FolderRun:
    """One run of a pipeline over a folder: `first` says whether there is work, then `run` does it on a fleet."""

    def __init__(self, media: MediaFolder, spec: PipelineSpec, models: Models, variant: bool, scratch: Path) -> None:
        self._media = media
        self._spec = spec
        self._models = models
        self._variant = variant
        self._scratch = scratch
        self._groups = media.groups()
        self._outcomes: list[JobOutcome] = []
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def tally(self) -> Tally:
        """What became of the files."""
        return self._media.tally

    def first(self) -> bool:
        """Look for work, and return whether there is any."""
        group = next(self._groups, None)
        if group is not None:
            self._groups = chain([group], self._groups)
        return group is not None

    async def run(self, settings: Settings, priority: Priority, listener: ProgressListener) -> None:
        """Do all on the fleet at `settings.nats`. An error of one group does not end the others."""
        async with Client.connected(settings, name="rigflow-run") as client:
            broker = client.broker
            mend = partial(repair, broker, settings, self._spec, self._models, self._variant)
            waiting = partial(unfinished, self._outcomes)
            async with explained(broker, listener.event, waiting, mend) as moved:
                spec = await register(broker, settings, self._spec, self._models, self._variant)
                client.on_sent = both(listener.sent, moved)
                work = _Work(client, spec, priority, listener, moved)
                turn = asyncio.Semaphore(PUBLISH_AT_ONCE)
                async with asyncio.TaskGroup() as tasks:
                    while (group := await asyncio.to_thread(next, self._groups, None)) is not None:
                        await self._slots.acquire()
                        tasks.create_task(self._take(group, work, turn))

    async def _take(
        self,
        group: list[Entry],
        work: "_Work",
        turn: asyncio.Semaphore,
    ) -> None:
        left = group  # of which nothing is counted yet
        try:
            left = await asyncio.to_thread(self._media.digested, group)
            copies, new = await asyncio.to_thread(self._sorted, left)
            if copies:
                self.tally.count("copies", await asyncio.to_thread(self._placed, copies))
                left = [entry for entries in new.values() for entry in entries]
            if new:
                await self._infer(new, work, turn)
        except Exception as error:
            reason = without_path(self._media.path(group[0]), str(as_ours(error)))
            self.tally.fail([entry.name for entry in left], reason)
        finally:
            self._slots.release()

    def _sorted(self, group: Sequence[Entry]) -> tuple[list[tuple[Entry, Files]], dict[str, list[Entry]]]:
        """What was made earlier of the same content, and the entries of each content that is to be done.

        In one result of all, entries of the same content have a place each.
        """
        copies: list[tuple[Entry, Files]] = []
        new: dict[str, list[Entry]] = {}
        for entry in group:
            if not (entry.timed or entry.alone) and (earlier := self._media.earlier(entry.digest)):
                copies.append((entry, earlier))
            else:
                new.setdefault(entry.digest if entry.timed or self._media.each else entry.name, []).append(entry)
        return copies, new

    def _placed(self, made: Sequence[tuple[Entry, Files]]) -> int:
        with _folder(self._scratch) as folder:
            return place(self._media, folder, made)

    async def _infer(
        self,
        new: dict[str, list[Entry]],
        work: "_Work",
        turn: asyncio.Semaphore,
    ) -> None:
        items = ItemResults()

        def on_part(job: str, meta: PartMeta) -> None:
            items.part(meta)
            work.moved()
            work.listener.part(job, meta)

        collector = Collector(work.client.broker, work.spec, on_part)
        with _folder(self._scratch) as folder:
            firsts = [entries[0] for entries in new.values()]
            outcome = self._outcome(firsts, folder / _RESULT, work)
            self._outcomes.append(outcome)
            over = self.tally.done + self.tally.known + len(self.tally.failed)
            work.listener.planned([each for each in self._outcomes if each.error is None], over)
            try:
                async with _collecting(work, collector, outcome):
                    await run_job(collector, outcome, turn)
            finally:
                self._outcomes.remove(outcome)
            await asyncio.to_thread(self._finish, outcome, firsts, new, items, folder)

    def _outcome(self, firsts: Sequence[Entry], target: Path, work: "_Work") -> JobOutcome:
        paths = [self._media.path(entry) for entry in firsts]
        identity = hashlib.sha256(self._spec.revision.encode())
        for entry in firsts:
            identity.update(f"\0{entry.name}\0{entry.digest}".encode())
        name = name_of([entry.name for entry in firsts])
        source, real = identity.hexdigest()[:20], [os.path.realpath(path) for path in paths]
        named = not (firsts[0].timed or firsts[0].alone)
        names = [self._name(number, entry) for number, entry in enumerate(firsts)] if named else []
        kind = firsts[0].kind
        ref = work.client.ref(work.spec, source, work.priority)
        return JobOutcome(name, ref, paths, real, target, kind=kind, source=source, names=names)

    def _name(self, number: int, entry: Entry) -> str:
        """What an item is called in its job: short where it has files of its own, which get their names later."""
        return token(number, entry) if self._media.each else entry.name

    def _finish(
        self,
        outcome: JobOutcome,
        firsts: Sequence[Entry],
        new: dict[str, list[Entry]],
        items: ItemResults,
        folder: Path,
    ) -> None:
        """Put the results of a job in place, and count its files, each once. Raises OutputError, with no count."""
        if outcome.error is not None:
            raise_or_leave(outcome.error, firsts, self._spec, self.tally)
            return
        assert outcome.done is not None
        failures, made = outcome.done.failures, list[tuple[Entry, Files]]()
        failed: list[tuple[Sequence[Entry], str]] = []
        is_whole = not firsts[0].timed and not self._media.each
        if is_whole:
            there = [first for first in firsts if outcome.done.files and (first.has_items or items.has(first.name))]
            failed = [([first], items.reason(first.name, failures)) for first in firsts if first not in there]
            if there:
                place_whole(self._media, outcome.target, there)
        for number, first in enumerate(() if is_whole else firsts):
            files = made_of(outcome.target, number, first, len(firsts) == 1, self._media)
            same = new[first.digest]
            if first.timed and failures:
                failed.append((same, failures[0]))
            elif files:
                made += [(each, files) for each in same]
            else:
                name = next(iter(items.errors), "") if first.alone else token(number, first)
                failed.append((same, items.reason(name, failures)))
        if made:
            place(self._media, folder, made)
        for entries, reason in failed:
            self.tally.fail([entry.name for entry in entries], reason)
        lost = {entry.name for entries, _ in failed for entry in entries}
        self._note_items([first for first in firsts if first.has_items and first.name not in lost], firsts, items)
        self.tally.note(outcome.name, outcome.done.notes)

    def _note_items(self, having: Sequence[Entry], firsts: Sequence[Entry], items: ItemResults) -> None:
        """Note which items of those files failed that have items and are done."""
        names = {clean_name(first.name) for first in firsts}
        before = f"{firsts[0].name}: " if firsts[0].alone else ""
        if having:
            failed = ((name, reason) for name, reason in items.errors.items() if name not in names)
            self.tally.failed_items += [(f"{before}{name}", reason) for name, reason in failed]


def raise_or_leave(error: RigflowError, entries: Sequence[Entry], spec: PipelineSpec, tally: Tally) -> None:
    """Raise the error of a job; of a file that is not called as media of the pipeline, as a wav is, only count it."""
    if len(entries) == 1 and entries[0].timed and not is_media_by_name(entries[0].name, spec.media):
        tally.count("no_media")
        return
    raise error


@asynccontextmanager
async def _collecting(work: _Work, collector: Collector, outcome: JobOutcome) -> AsyncIterator[None]:
    await open_job(work.client, work.spec, outcome, again=True)
    await collector.open({outcome.job: outcome.target}, {outcome.job: outcome.real})
    try:
        yield
    finally:
        await collector.close()


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    folder = scratch / uuid.uuid4().hex[:12]
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def folder_run(
    folder: Path,
    out: Path,
    spec: PipelineSpec,
    models: Models,
    variant: bool,
    overwrite: bool,
    only_new: bool,
    template: OutTemplate | None = None,
) -> Iterator[FolderRun]:
    """A run of a pipeline over a folder, with its ledger open; `variant` as in `run_jobs`.

    Raises StoreError, OutputError, ModelError.
    """
    spec = pinned(spec, models)
    ledger = Ledger(ledger_path(out, spec.name), out, spec.revision)
    ledger.open()
    scratch = out / f".rigflow-{spec.name}-unfinished"
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed: the ledger's lock is ours
        media = MediaFolder(folder, out, spec, ledger, overwrite, only_new, template)
        yield FolderRun(media, spec, models, variant, scratch)
    finally:
        ledger.close()
        with suppress(OSError):
            scratch.rmdir()
