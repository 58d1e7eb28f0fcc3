"""The work of `rigflow run`: starts a local broker and workers, or uses a fleet; publishes and collects jobs."""

import asyncio
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from engines.media.shared import located
from engines.media.source import media_kind
from engines.models.catalogue import builtin_model, builtin_models, own_model
from engines.outputs.names import OutputNames, Wanted
from engines.plan import plan_pipeline
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.jetstream import Gone
from pipelines.jobs import JobRecord
from pipelines.publish import Publisher, job_id
from pipelines.registry import builtin_pipeline, builtin_pipelines, publish_pipeline
from pipelines.server import EmbeddedServer, embedded
from pipelines.topology import apply_topology, ensure_topology
from schemas.errors import ModelMissing, PipelineError, RigflowError, StoreError, UsageError, first_error
from schemas.jobs import JobRef, Priority
from schemas.parts import PartMeta
from schemas.pipeline import ModelSpec, PipelineSpec, parse_pipeline
from schemas.results import Done
from schemas.settings import CACHE_HINT, Settings
from schemas.text import is_text, printable
from workers.options import ALL_STAGES, WorkerOptions
from workers.supervisor import Supervisor
from workers.telemetry import Event
from workers.waits import both, explained

Models = Mapping[str, tuple[ModelSpec, bytes]]  # a model's name in its pipeline -> its model card and its ONNX file
LOOK_S = 2.0  # how often the embedded broker is asked for its health
TRIES = 3  # of a job whose messages were deleted from the broker
BEGIN_AT_ONCE = 16  # jobs that ask the broker how far they are
PUBLISH_AT_ONCE = 2  # files being cut at the same time: one is read while the other waits for the broker


class ProgressListener(Protocol):
    """Gets calls about the progress of a run, to show it."""

    def planned(self, outcomes: "list[JobOutcome]") -> None:
        """These jobs are to be done."""

    def sent(self, job: str, seconds: float, segments: int) -> None:
        """`seconds` and `segments` of a job's media are at the broker."""

    def part(self, job: str, meta: PartMeta) -> None:
        """A part of a job is done."""

    def event(self, text: str) -> None:
        """One line of text, for example that a worker died."""


@dataclass(slots=True)
class JobOutcome:
    """One job of a run and its outcome: its Done, or the error that ended it.

    `real` are the paths of its inputs with links resolved; `source` identifies its input; `target` is where its result
    goes, without suffix.
    """

    name: str
    job: JobRef
    inputs: list[Path]
    real: list[str]
    target: Path = Path()
    images: bool = False
    source: str = ""
    record: JobRecord | None = None
    done: Done | None = None
    error: RigflowError | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the job is done without failures."""
        return self.done is not None and not self.done.failures


@asynccontextmanager
async def local_fleet(
    settings: Settings, workers: int, listener: ProgressListener, grace_s: float = 2.0
) -> AsyncIterator[Settings]:
    """A broker (unless settings name one) and `workers` worker processes; yields settings that reach them.

    Ends the block with an error when the broker cannot be started again, or no worker is left.
    """
    if workers:
        _check_cache(settings.cache_folder)
    server: EmbeddedServer | None = None
    if not settings.nats:
        server = embedded(settings)
        await _start(server)
        settings = settings.model_copy(
            update={"nats": server.url, "shared": ("/",), "credentials": str(server.password_file)}
        )
    options = [
        WorkerOptions(settings=settings, stages=ALL_STAGES, name=f"local-{n + 1}", device=settings.device)
        for n in range(workers)
    ]
    over = False

    def show(event: Event) -> None:
        if event.level > logging.INFO and not over:  # after the block, events of ending workers do not matter
            listener.event(str(event))

    supervisor = Supervisor(options, show)
    try:
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(supervisor.watch())]
            if server is not None:
                watches.append(group.create_task(_watch_server(server, listener)))
            yield settings
            for watch in watches:
                watch.cancel()
    except* RigflowError as errors:
        raise first_error(errors) from None
    finally:
        over = True
        try:
            await supervisor.stop(grace_s)
        finally:
            if server is not None:
                await asyncio.to_thread(server.stop)


async def _start(server: EmbeddedServer) -> None:
    """Start the broker. A task that is cancelled meanwhile leaves no broker, store or password file behind."""
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(RigflowError):
            await starting
            await asyncio.to_thread(server.stop)
        raise


def _check_cache(folder: Path) -> None:
    """Check that workers can write models to the cache. Raises StoreError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = f"cannot keep models in {folder}: {error.strerror}"
        raise StoreError(what, CACHE_HINT) from error


async def _watch_server(server: EmbeddedServer, listener: ProgressListener) -> None:
    """Start the broker again when it dies, or could not write to its disk; its store has all that was acked."""
    looked_s = time.monotonic()
    while True:
        await asyncio.sleep(0.2)
        if not server.alive:
            listener.event("the embedded broker died, starting it again on its store")
            await asyncio.to_thread(server.restart)
        elif time.monotonic() - looked_s > LOOK_S:
            if await asyncio.to_thread(lambda: server.unwritable):
                await _wait_for_free_space(server, listener)
                await asyncio.to_thread(server.restart)
                listener.event(
                    "the embedded broker could not write to its disk, and was started again now that space is free"
                )
            looked_s = time.monotonic()


async def _wait_for_free_space(server: EmbeddedServer, listener: ProgressListener) -> None:
    if not server.has_free_space:
        listener.event(f"the disk of {server.store} is full: rigflow waits until you free some space")
    while not server.has_free_space:  # noqa: ASYNC110, the file system sends no event
        await asyncio.sleep(1.0)


def find_pipeline(name: str) -> tuple[PipelineSpec, Path | None]:
    """A pipeline by the path of its file, or by the name of one that comes with rigflow; and the file's folder.

    Raises PipelineError.
    """
    path = Path(name)
    if path.suffix != ".toml":
        return builtin_pipeline(name), None
    try:
        return parse_pipeline(path.read_text(), str(path)), path.resolve().parent
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PipelineError(f"{path}: {reason}", "give a pipeline file, or see `rigflow pipelines list`") from error


def find_models(
    spec: PipelineSpec, folder: Path | None, cache: Path | None = None
) -> dict[str, tuple[ModelSpec, bytes]]:
    """The models of a pipeline: NAME.onnx beside the pipeline's file (with NAME.toml as its model card), built in, or
    one of the user's own in the folder of models. What is built stays in the folder `cache`.

    Raises ModelError when one is missing or does not fit its stage.
    """
    models = {}
    for name in spec.model_names.values():
        beside = folder is not None and (folder / f"{name}.onnx").exists()
        if name in builtin_models() and not beside:
            models[name] = builtin_model(name, cache and cache / "builtin")
        else:
            models[name] = own_model(name, folder)
    plan_pipeline(spec, {name: card for name, (card, _) in models.items()})
    return models


async def register(broker: Broker, settings: Settings, spec: PipelineSpec, models: Models) -> PipelineSpec:
    """Publish a pipeline with its streams and models to the fleet; the spec with its models pinned."""
    await ensure_topology(broker, settings, [spec])
    return await publish_pipeline(broker, spec, models)


async def repair(broker: Broker, settings: Settings, spec: PipelineSpec, models: Models) -> list[str]:
    """Create streams and consumers of a pipeline that were deleted, and publish it again; names of the created ones."""
    made = await ensure_topology(broker, settings, [spec])
    if made:
        await publish_pipeline(broker, spec, models)
    return [f"{change.stream} {change.consumer}".rstrip() for change in made]


async def register_builtin(settings: Settings, ours: bool = False) -> list[str]:
    """Publish the pipelines that come with rigflow to the fleet at `settings.nats`; their names.

    With `ours`, the broker is of this process, and its streams are changed to our settings. Pipelines whose model is
    missing are left out.
    """
    ready: list[tuple[PipelineSpec, Models]] = []
    for spec in map(builtin_pipeline, builtin_pipelines()):
        with suppress(ModelMissing):
            ready.append((spec, find_models(spec, None, settings.cache_folder)))
    broker = await Broker.connect(settings, name="rigflow-up")
    try:
        if ours:
            await apply_topology(broker, settings, [spec for spec, _ in ready])
        for spec, models in ready:
            await register(broker, settings, spec, models)
    finally:
        await broker.close()
    return [spec.name for spec, _ in ready]


async def run_jobs(
    settings: Settings,
    spec: PipelineSpec,
    models: Models,
    inputs: Sequence[Path],
    out: Path,
    priority: Priority,
    listener: ProgressListener,
    overwrite: bool = False,
) -> list[JobOutcome]:
    """Publish `inputs` to the fleet at `settings.nats` and collect their results into `out`.

    Results get names that are free, or with `overwrite` those of earlier results. An error of one job is in its
    outcome, and the others continue. Raises BrokerError, OutputError when nothing can be published or written.
    """
    broker = await Broker.connect(settings, name="rigflow-run")
    outcomes: list[JobOutcome] = []
    try:
        mend = partial(repair, broker, settings, spec, models)
        async with explained(broker, listener.event, lambda: unfinished(outcomes), mend) as moved:
            registering = register(broker, settings, spec, models)
            spec, inspected = await asyncio.gather(registering, asyncio.to_thread(look_at, inputs))
            publisher = Publisher(broker, spec, settings.tenant, priority, both(listener.sent, moved))
            outcomes += await asyncio.to_thread(plan_jobs, publisher, spec, inspected)
            with OutputNames(out, overwrite, inputs) as names:
                await asyncio.to_thread(name_results, names, out, outcomes)
                for left in reversed(range(TRIES)):
                    waiting = [outcome for outcome in outcomes if outcome.done is None and outcome.error is None]
                    able = await _begin_all(publisher, waiting)
                    listener.planned(outcomes)
                    if able:
                        await _run_all(publisher, Collector(broker, spec, both(listener.part, moved)), able)
                    if not (left and _to_begin_again(able, listener)):
                        break
                    await register(broker, settings, spec, models)
    finally:
        await broker.close()
    return outcomes


def _to_begin_again(outcomes: Sequence[JobOutcome], listener: ProgressListener) -> bool:
    """Whether jobs ended because their messages were deleted from the broker; clears their errors for another try."""
    lost = [(outcome, outcome.error) for outcome in outcomes if isinstance(outcome.error, Gone)]
    for outcome, error in lost:
        listener.event(f"{outcome.name} is begun again: {error.what}")
        outcome.error = None
    return bool(lost)


def unfinished(outcomes: Sequence[JobOutcome]) -> list[JobRef]:
    """The jobs that are not over."""
    return [outcome.job for outcome in outcomes if outcome.done is None and outcome.error is None]


async def _run_all(publisher: Publisher, collector: Collector, outcomes: Sequence[JobOutcome]) -> None:
    await collector.open({outcome.job: outcome.target for outcome in outcomes})
    try:
        turn = asyncio.Semaphore(PUBLISH_AT_ONCE)
        async with asyncio.TaskGroup() as jobs:
            for outcome in outcomes:
                jobs.create_task(run_job(publisher, collector, outcome, turn))
    finally:
        await collector.close()


class _Input(NamedTuple):
    """A file to be sent: `real` is its path with links resolved."""

    path: Path
    real: str
    stat: os.stat_result
    kind: str


Inspected = Sequence[tuple[Path, _Input | RigflowError]]


def look_at(inputs: Sequence[Path]) -> Inspected:
    """Each input once, looked at; or why it cannot be sent."""
    each = {str(path): path for path in inputs}
    return [(path, _inspect(path, *found)) for path, found in zip(each.values(), located(each), strict=True)]


def plan_jobs(publisher: Publisher, spec: PipelineSpec, inspected: Inspected) -> list[JobOutcome]:
    """One job a video; all images together are one. An input that cannot be sent becomes an outcome with an error."""
    fit = [found for _, found in inspected if isinstance(found, _Input)]
    images = [file for file in fit if file.kind == "image"]
    jobs = [(file.path.name, [file], False) for file in fit if file.kind == "video"]
    if images:
        jobs.append((images[0].path.name if len(images) == 1 else f"{len(images)} images", images, True))
    outcomes: list[JobOutcome] = []
    identities: set[str] = set()
    for name, files, are_images in jobs:
        paths = [file.path for file in files]
        identity = job_id(spec, ((file.real, file.stat) for file in files))
        if identity in identities:  # another path of the same file gets a job and a result of its own
            identity = hashlib.sha256(f"{identity}/{paths[0].absolute()}".encode()).hexdigest()[:20]
        identities.add(identity)
        real = [file.real for file in files]
        outcomes.append(JobOutcome(name, publisher.ref(identity), paths, real, images=are_images, source=identity))
    for path, why in inspected:
        if isinstance(why, RigflowError):
            outcomes.append(JobOutcome(printable(path.name), publisher.ref("unfit"), [path], [], error=why))
    return outcomes


def _inspect(path: Path, real: str, found: os.stat_result | None) -> _Input | RigflowError:
    """An input, looked at once; or why it cannot be sent."""
    file = _regular(path, real, found)
    return file if isinstance(file, RigflowError) else _Input(path, real, file, kind_of(path))


def input_error(path: Path) -> RigflowError | None:
    """Why an input cannot be sent, before it is read."""
    found = _regular(path, os.path.realpath(path), None)
    return found if isinstance(found, RigflowError) else None


def _regular(path: Path, real: str, found: os.stat_result | None) -> os.stat_result | UsageError:
    """What the system says of a regular file: `found` where it was asked before.

    The file is not opened: that would wake the writer of a FIFO.
    """
    if not is_text(real):
        return UsageError(f"{path}: its name is not UTF-8", "rename it")
    try:
        file = found or path.stat()
    except FileNotFoundError:
        return UsageError(f"{path}: no such file", "check the path")
    except OSError as error:
        return UsageError(f"{path}: {error.strerror}", "check the path")
    if stat.S_ISDIR(file.st_mode):
        return UsageError(f"{path}: is a folder", f"name its files, for example {path}/*.mp4")
    if not stat.S_ISREG(file.st_mode):
        return UsageError(f"{path}: not a file that can be read twice", "copy it into one")
    return file


async def _begin_all(publisher: Publisher, outcomes: Sequence[JobOutcome]) -> list[JobOutcome]:
    """Begin jobs, some at a time because each waits for the broker; those whose id does not belong to another input."""
    turn = asyncio.Semaphore(BEGIN_AT_ONCE)

    async def begin(outcome: JobOutcome) -> None:
        async with turn:
            try:
                await begin_job(publisher, outcome, again=True)
            except UsageError as error:
                outcome.error = error

    await asyncio.gather(*map(begin, outcomes))
    return [outcome for outcome in outcomes if outcome.error is None]


def name_results(names: OutputNames, out: Path, outcomes: Sequence[JobOutcome]) -> None:
    """Reserve a name for each result; for inputs of the same name it has the suffix or the folder too."""
    videos = [outcome.inputs[0] for outcome in outcomes if len(outcome.inputs) == 1]
    stems, full = Counter(path.stem for path in videos), Counter(path.name for path in videos)
    able = [outcome for outcome in outcomes if outcome.error is None]
    wanted = []
    for outcome in able:
        if len(outcome.inputs) > 1:
            wanted.append(Wanted(out, "images", outcome.job.pipeline))
            continue
        path = outcome.inputs[0]
        skip = 2 if full[path.name] > 1 else 1 if stems[path.stem] > 1 else 0
        wanted.append(Wanted(out, path.name, outcome.job.pipeline, path.resolve().parent.name, skip))
    for outcome, target in zip(able, names.reserve_all(wanted), strict=True):
        if isinstance(target, Path):
            outcome.target = target
        else:
            outcome.error = target


def kind_of(path: Path) -> str:
    """Kind of media of a file. An unreadable file counts as video; publishing it then fails with the reason."""
    try:
        return media_kind(path)
    except RigflowError:
        return "video"


async def begin_job(publisher: Publisher, outcome: JobOutcome, again: bool) -> JobRecord:
    """Begin or continue a job; see `pipelines.jobs.begin`."""
    name = outcome.name if len(outcome.inputs) == 1 else "images"
    outcome.record = await publisher.begin(outcome.job, name, outcome.source, again)
    outcome.job = outcome.record.manifest.job
    return outcome.record


async def send_job(publisher: Publisher, outcome: JobOutcome) -> None:
    """Publish what is not at the broker yet. Raises UsageError when the pipeline does not take its kind of media."""
    publisher.spec.check_takes("image" if outcome.images else "video")
    if outcome.images:
        names = [path.name for path in outcome.inputs]
        await publisher.publish_images(outcome.job, outcome.real, names, outcome.record)
    else:
        await publisher.publish_video(outcome.job, outcome.inputs[0], outcome.name, outcome.record)


async def run_job(publisher: Publisher, collector: Collector, outcome: JobOutcome, turn: asyncio.Semaphore) -> None:
    """Publish one job and wait for it; its error goes into `outcome` and ends no other job (law 5)."""
    started = time.monotonic()
    try:
        async with turn:
            await send_job(publisher, outcome)
        outcome.done = await collector.wait(outcome.job.id)
    except Exception as error:
        collector.abandon(outcome.job.id)
        outcome.error = as_ours(error)
    finally:
        outcome.seconds = time.monotonic() - started


def as_ours(error: Exception) -> RigflowError:
    """Convert any error to a RigflowError of one line."""
    found = first_error(error)
    if isinstance(found, RigflowError):
        return found
    if isinstance(found, OSError) and found.strerror:
        return RigflowError(f"{found.filename}: {found.strerror}" if found.filename else found.strerror)
    return RigflowError(f"unexpected {type(found).__name__}: {found}", "please report it")
