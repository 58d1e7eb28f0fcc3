"""`rigflow dead`: shows failed work with its input, sends it again, or deletes it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cli.answers import Answer, answers
from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.output_folder import prepare_folder
from cli.results import write_result
from cli.text import age, cell, clock, say, say_fields, say_json, stdout, warn
from schemas.errors import ExitCode, StoreError, UsageError
from schemas.text import printable, size

if TYPE_CHECKING:
    from rich.text import Text

    from pipelines.broker import Broker
    from pipelines.dead import Letter
    from schemas.results import Attempt
    from schemas.settings import Settings
    from schemas.wire import Buffer

app = Commands(
    name="dead",
    help="Show failed work, send it again, or delete it.\n\nExample: rigflow dead list",
)

Numbers: TypeAlias = Annotated[list[int] | None, typer.Argument(help="Numbers of dead letters.", metavar="NUMBER...")]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All there are, or all of --job.")]
Job: TypeAlias = Annotated[str, typer.Option(help="Only those of this job.")]
Tenant: TypeAlias = Annotated[
    str, typer.Option(help="Those of this tenant. Default: all but those of listed tenants.", metavar="NAME")
]


@app.command("list")
@on_fleet
def list_(
    job: Job = "",
    tenant: Tenant = "",
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """List dead letters, oldest first.

    Example: rigflow dead list --job 5f0c6a4be1d2f7a09c3e
    """
    return run_async(_list(settings, job, tenant, as_json))


@app.command()
@on_fleet
def show(
    number: Annotated[int, typer.Argument(help="Number of a dead letter.")],
    as_json: Json = False,
    save: Annotated[
        Path | None, typer.Option(help="Write the media that failed to this file, or into this folder.", metavar="PATH")
    ] = None,
    tenant: Tenant = "",
    *,
    settings: "Settings",
) -> ExitCode:
    """Show one dead letter: its reason, and every attempt.

    It also says which seconds of the media are missing. `--save` extracts the segment that failed as a file that
    players open (images as they came, frames as .npz).

    Example: rigflow dead show 12 --save segment.mp4
    """
    return run_async(_show(settings, number, tenant, save, as_json))


@app.command()
@on_fleet
def retry(
    numbers: Numbers = None,
    every: All = False,
    job: Job = "",
    tenant: Tenant = "",
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Send the inputs of dead letters again.

    First repair the cause: a worker, a model, a disk. `rigflow results JOB` then writes the files of the job with the
    repaired parts. An input that is itself at fault fails again: extract it by `rigflow dead show NUMBER --save FILE`,
    repair it and publish it as a new job; `rigflow dead drop NUMBER` deletes this one.

    Example: rigflow dead retry 12 13
    """
    from pipelines import dead

    with answers(as_json) as answer:
        code = run_async(_each(settings, numbers or [], every, (job, tenant), dead.retry, "sent again", answer))
    if code is ExitCode.OK:
        warn("an input that fails again is itself at fault: `rigflow dead retry --help` says what to do")
    return code


@app.command()
@on_fleet
def drop(
    numbers: Numbers = None,
    every: All = False,
    job: Job = "",
    tenant: Tenant = "",
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Delete dead letters and their inputs for good.

    Example: rigflow dead drop --all --job 5f0c6a4be1d2f7a09c3e
    """
    from pipelines import dead

    with answers(as_json) as answer:
        return run_async(_each(settings, numbers or [], every, (job, tenant), dead.drop, "dropped", answer))


async def _list(settings: "Settings", job: str, tenant: str, as_json: bool) -> ExitCode:
    from cli.tables import paragraphs

    listed, facts = [(cell("number", "bold"), cell("dead letter", "bold"))], []
    async with _broker(settings) as broker:
        others = [each for each in sorted(broker.tenants) if each != tenant]
        async for letter in _letters(broker, job, tenant):
            listed.append((cell(letter.number), _summary(letter, broker.now_s())))
            facts += [_facts(letter)] if as_json else []
    if as_json:
        say_json(facts)
    else:
        stdout().print(paragraphs(listed) if len(listed) > 1 else "no dead letters")
        if others:
            say(f"--tenant NAME lists those of {', '.join(others)}")
    return ExitCode.OK


def _facts(letter: "Letter") -> dict[str, Any]:
    """All that is known of a dead letter, for programs."""
    described = {"number": letter.number, "nbytes": letter.nbytes, "queue": letter.queue}
    return described | {"failure": letter.failure.model_dump(mode="json")}


def _summary(letter: "Letter", now_s: float) -> "Text":
    """A dead letter in two lines: what failed and when, and the error."""
    failure = letter.failure
    key = failure.key
    when = f"{age(now_s - failure.at_s, units=1)} ago"
    where = f"{key.job.id}, {key.job.pipeline} {failure.stage}, {_piece(letter)}"
    return cell(f"{where}, {size(letter.nbytes)}, {when}").append("\n").append_text(cell(failure.error))


def _piece(letter: "Letter") -> str:
    """What failed of the job."""
    key = letter.failure.key
    piece = "the whole job" if key.segment < 0 else f"segment {key.segment}"
    return piece + ("" if letter.failure.entire_segment else f", part {key.part}")


async def _show(settings: "Settings", number: int, tenant: str, save: Path | None, as_json: bool) -> ExitCode:
    from pipelines.dead import media_of

    async with _broker(settings) as broker:
        letter = await _find(broker, number, tenant)
        if not as_json:
            say_fields(describe(letter))
            if letter.failure.detail:
                say(f"\n{letter.failure.detail}", keep="\n")
        saved = [] if save is None else _save(await media_of(broker, letter), save)
    if as_json:
        say_json(_facts(letter) | {"saved": list(map(str, saved))})
        return ExitCode.OK
    for path in saved:
        say(f"{'' if path is not saved[0] else chr(10)}saved     {printable(str(path))}", keep="\n")
    return ExitCode.OK


def _save(files: "Mapping[str, Buffer]", where: Path) -> list[Path]:
    """Write one file as `where`, or those of several images into it; the paths."""
    from engines.outputs.names import clean

    if len(files) > 1:
        prepare_folder(where)
    paths = [(where / clean(name) if where.is_dir() else where, body) for name, body in files.items()]
    return [write_result(path, body) for path, body in paths]


async def _each(
    settings: "Settings",
    numbers: list[int],
    every: bool,
    of: tuple[str, str],
    act: "Callable[[Broker, Letter], Awaitable[None]]",
    done: str,
    answer: Answer,
) -> ExitCode:
    """Do something with the chosen dead letters, one after the other; `of`: a job and a tenant."""
    from pipelines.jetstream import Gone

    code = ExitCode.OK
    if every == bool(numbers):
        raise UsageError("which dead letters", "give their numbers, or --all; see `rigflow dead list`")
    async with _broker(settings) as broker:
        for number in numbers or [letter.number async for letter in _letters(broker, *of)]:
            letter = await _find(broker, number, of[1])
            try:
                await act(broker, letter)
            except (UsageError, StoreError, Gone) as error:  # its input has expired, or its queue was deleted
                answer(f"{number}: {error}", number=number, done=False, error=str(error))
                code = ExitCode.SOME_FAILED
                continue
            job_id, stage = letter.failure.key.job.id, letter.failure.stage
            answer(f"{number}: job {job_id}, {stage}: {done}", number=number, done=True, job=job_id, stage=stage)
    return code


async def _letters(broker: "Broker", job: str, tenant: str) -> "AsyncIterator[Letter]":
    from pipelines.dead import letters

    _check(broker, tenant)
    async for letter in letters(broker, job, tenant=tenant):
        if _is_of(broker, letter, tenant):
            yield letter


async def _find(broker: "Broker", number: int, tenant: str) -> "Letter":
    from pipelines.dead import find_letter, no_letter

    _check(broker, tenant)
    letter = await find_letter(broker, number, tenant)
    if not _is_of(broker, letter, tenant):
        raise no_letter(number)
    return letter


def _check(broker: "Broker", tenant: str) -> None:
    """Raise UsageError for a tenant that the fleet has not, whose letters would be those of others."""
    from schemas.tenants import MAIN

    if broker.tenants and tenant not in ("", MAIN, *broker.tenants):
        known = ", ".join(sorted({MAIN, *broker.tenants}))
        raise UsageError(f"the fleet has no tenant {tenant[:100]!a}", f"it has {known}; see `rigflow dead list`")


def _is_of(broker: "Broker", letter: "Letter", tenant: str) -> bool:
    """Whether a letter is of the tenant: one that is not listed shares its stream with others."""
    return tenant in ("", *broker.tenants) or letter.failure.key.job.tenant == tenant


def _broker(settings: "Settings") -> "AbstractAsyncContextManager[Broker]":
    from pipelines.broker import Broker

    return Broker.connected(settings, name="rigflow-dead")


def describe(letter: "Letter") -> list[tuple[str, str]]:
    """All that is known of a dead letter but its `detail`: title and text of each line."""
    failure = letter.failure
    job = failure.key.job
    span = f", {failure.start_s:.2f} to {failure.end_s:.2f} s" if failure.end_s > failure.start_s else ""
    return [
        ("job", f"{job.id} ({job.pipeline} {job.revision}, tenant {job.tenant}, {job.priority})"),
        ("piece", _piece(letter) + span),
        ("stage", failure.stage),
        ("error", printable(failure.error)),
        ("when", clock(failure.at_s)),
        ("worker", failure.worker or "-"),
        ("delivered", f"{failure.deliveries} times" if failure.deliveries > 1 else "once"),
        ("input", f"{size(letter.nbytes)} from {letter.queue}"),
        *((f"attempt {number}", _attempt(each)) for number, each in enumerate(failure.attempts, 1)),
    ]


def _attempt(attempt: "Attempt") -> str:
    """One attempt: its worker, host, device and time, and how it ended."""
    came = printable(attempt.ended) or "it ended without a message: killed, or stuck"
    return f"{attempt.worker} on {attempt.host} ({attempt.device}), {clock(attempt.at_s)}: {came}"
