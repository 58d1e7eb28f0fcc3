"""The work of `rigflow run`: publishes jobs to a fleet and collects their results."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from engines.outputs.names import OutputNames
from engines.outputs.template import OutTemplate
from pipelines.client import Client
from pipelines.collect import Collector
from pipelines.early_split import EarlySplit
from pipelines.jetstream import Gone
from pipelines.job import OpenJob
from pipelines.tracing import traced
from schemas.errors import RigflowError, UsageError, first_error
from schemas.jobs import JobRef, Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.definitions import Models, pinned, register, repair
from workers.inputs import Inspected, JobOutcome, look_at, name_results, plan_jobs, split_early
from workers.waits import both, explained

TRIES = 3  # of a job whose messages were deleted from the broker
BEGIN_AT_ONCE = 16  # jobs that ask the broker how far they are
PUBLISH_AT_ONCE = 2  # files being cut at the same time: one is read while the other waits for the broker


class ProgressListener(Protocol):
    """Gets calls about the progress of a run, to show it."""

    def planned(self, outcomes: "list[JobOutcome]", files_over: int | None = None) -> None:
        """These jobs are to be done.

        Of a folder, these are the jobs at work, and `files_over` of its files are done, or failed; more may follow.
        """

    def sent(self, job: str, seconds: float, segments: int) -> None:
        """`seconds` and `segments` of a job's media are at the broker."""

    def part(self, job: str, meta: PartMeta) -> None:
        """A part of a job is done."""

    def share(self, job: str, share: float) -> None:
        """The work of a job is done, and so much of its files is finished, 0 to 1."""

    def event(self, text: str) -> None:
        """One line of text, for example that a worker died."""


async def run_jobs(
    settings: Settings,
    spec: PipelineSpec,
    models: Models,
    inputs: Sequence[Path],
    out: Path,
    priority: Priority,
    listener: ProgressListener,
    overwrite: bool = False,
    variant: bool = False,
    template: OutTemplate | None = None,
) -> list[JobOutcome]:
    """Publish `inputs` to the fleet at `settings.nats` and collect their results into `out`.

    Results get names that are free, or with `overwrite` those of earlier results; those that equal earlier ones are not
    written. `variant`: the pipeline is for these
    jobs alone, see `pipelines.registry`. An error of one job is in its outcome, and the others continue. Raises
    UsageError when a template gives two results one path, before anything is published, and BrokerError, OutputError
    when nothing can be published or written.
    """
    outcomes: list[JobOutcome] = []
    async with Client.connected(settings, name="rigflow-run") as client:
        broker = client.broker
        mend = partial(repair, broker, settings, spec, models, variant)
        async with explained(broker, listener.event, lambda: unfinished(outcomes), mend) as moved:
            spec = pinned(spec, models)
            registering = register(broker, settings, spec, models, variant)
            spec, (inspected, early) = await asyncio.gather(registering, _look_at(settings, spec, inputs))
            client.on_sent = both(listener.sent, moved)
            outcomes += await asyncio.to_thread(plan_jobs, client, spec, inspected, priority)
            if early is not None:
                outcomes[0].early = early
            if template is not None:
                template.check((outcome.path_name for outcome in outcomes if outcome.error is None), spec.name)
            with OutputNames(out, overwrite, inputs) as names:
                await asyncio.to_thread(name_results, names, out, outcomes, template)
                for left in reversed(range(TRIES)):
                    waiting = [outcome for outcome in outcomes if outcome.done is None and outcome.error is None]
                    able = await _begin_all(client, spec, waiting, listener)
                    listener.planned(outcomes)
                    if able:
                        on_part, on_share = both(listener.part, moved), both(listener.share, moved)
                        compare = partial(_compare, names, {outcome.job.id: outcome for outcome in able})
                        await _run_all(Collector(broker, spec, on_part, on_share, compare=compare), able)
                    if not (left and _to_begin_again(able, listener)):
                        break
                    await register(broker, settings, spec, models, variant)
    return outcomes


async def _look_at(
    settings: Settings, spec: PipelineSpec, inputs: Sequence[Path]
) -> tuple[Inspected, EarlySplit | None]:
    inspected = await asyncio.to_thread(look_at, inputs, spec)
    return inspected, split_early(settings, spec, inspected)


def _compare(names: OutputNames, outcomes: Mapping[str, JobOutcome], job: str, files: list[Path]) -> Sequence[Path]:
    return outcomes[job].compare(names, job, files)


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


async def _run_all(collector: Collector, outcomes: Sequence[JobOutcome]) -> None:
    await collector.open(
        {outcome.job: outcome.target for outcome in outcomes}, {outcome.job: outcome.real for outcome in outcomes}
    )
    try:
        turn = asyncio.Semaphore(PUBLISH_AT_ONCE)
        async with asyncio.TaskGroup() as jobs:
            for outcome in outcomes:
                jobs.create_task(run_job(collector, outcome, turn))
    finally:
        await collector.close()


async def _begin_all(
    client: Client, spec: PipelineSpec, outcomes: Sequence[JobOutcome], listener: ProgressListener
) -> list[JobOutcome]:
    """Begin jobs, some at a time because each waits for the broker; those whose id does not belong to another input."""
    turn = asyncio.Semaphore(BEGIN_AT_ONCE)

    async def begin(outcome: JobOutcome) -> None:
        async with turn:
            try:
                opened = await open_job(client, spec, outcome, again=True)
            except UsageError as error:
                outcome.error = error
            else:
                if opened.note:
                    listener.event(f"{outcome.name} is begun again: {opened.note}")

    await asyncio.gather(*map(begin, outcomes))
    return [outcome for outcome in outcomes if outcome.error is None]


async def open_job(client: Client, spec: PipelineSpec, outcome: JobOutcome, again: bool) -> OpenJob:
    """Begin or continue a job; see `pipelines.jobs.begin`."""
    ref = outcome.job
    opened = await client.open(spec, outcome.files, job=ref.id, priority=ref.priority, again=again)
    outcome.opened, outcome.job = opened, opened.ref
    return opened


async def run_job(collector: Collector, outcome: JobOutcome, turn: asyncio.Semaphore) -> None:
    """Publish one opened job and wait for it; its error goes into `outcome` and ends no other job (law 5)."""
    started = time.monotonic()
    try:
        assert outcome.opened is not None
        early, outcome.early = outcome.early, None
        async with turn:
            await outcome.opened.send(early)
        with traced(outcome.opened.tracer, "collect", outcome.opened.manifest, time.time_ns()):
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
