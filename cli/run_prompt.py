"""`rigflow run chat -`: a text from standard input, its answer on standard output, on a terminal as it is written."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cli.answers import answers
from cli.interrupts import CLEANING_UP, run_async
from cli.output_folder import output_folder
from cli.stdin import name_stdin
from cli.task import Task
from cli.text import say_json, warn
from engines.files import writing
from engines.outputs.earlier import settled
from engines.outputs.names import OutputNames, Wanted
from pipelines.growing_answer import GrowingAnswer
from schemas.errors import ExitCode, MediaError, MessageError, RigflowError
from schemas.messages import decode
from schemas.results import Delta
from schemas.text import size

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from schemas.parts import PartMeta
    from workers.inputs import JobOutcome

MOST_BYTES = 64 << 20  # of standard input


class ShownAnswer:
    """Writes new text to a terminal as it comes; the first answer of one job alone."""

    def __init__(self, shows: bool) -> None:
        self._shows = shows
        self._job = ""
        self._place: tuple[int, int, int] | None = None
        self._answer = GrowingAnswer()

    def planned(self, outcomes: "list[JobOutcome]", files_over: int | None = None) -> None:
        """The job is known."""
        self._job = outcomes[0].job.id if outcomes else ""

    def sent(self, job: str, seconds: float, segments: int) -> None:
        """Show nothing."""

    def part(self, job: str, meta: "PartMeta") -> None:
        """Show nothing."""

    def share(self, job: str, share: float) -> None:
        """Show nothing."""

    def event(self, text: str) -> None:
        """A message for the user."""
        warn(text)

    async def take(self, message: "Msg") -> None:
        """Show the new text of a message. An answer that is begun again continues where the shown text ends."""
        with suppress(MessageError):
            delta, _ = decode(message.data)
            if isinstance(delta, Delta) and delta.key.job.id == self._job:
                self._add(delta)

    @property
    def text(self) -> str:
        """What is shown."""
        return self._answer.text if self._shows else ""

    def _add(self, delta: Delta) -> None:
        place = (delta.key.segment, delta.key.part, delta.row)
        self._place = self._place or place
        if place == self._place and (new := self._answer.take(delta)) and self._shows:
            sys.stdout.write(new)
            sys.stdout.flush()


def run_prompt(task: Task, path: Path, as_json: bool) -> ExitCode:
    """Run a pipeline over a text of standard input, before bulk work, and print the answers.

    Files that are no answers go into the folder of results. Raises MediaError.
    """
    if path.stat().st_size > MOST_BYTES:
        raise MediaError(f"standard input has more than {size(MOST_BYTES)}", "give it as a file")
    listener = ShownAnswer(sys.stdout.isatty() and not as_json)
    try:
        outcome = run_async(_run(task, path, listener), CLEANING_UP)
        if outcome.done is None:
            raise outcome.error or MediaError("standard input has no answer", "see docs/chat.md")
    except RigflowError as error:
        name_stdin(error, path)
        raise
    names = [path.parent / name for name in outcome.done.files]
    rows = [json.loads(line) for name in names if name.suffix == ".jsonl" for line in name.read_text().splitlines()]
    if not rows:
        return _placed(task, path.with_name(outcome.target.name), names, as_json)
    if as_json:
        say_json(rows)
        return ExitCode.SOME_FAILED if any("error" in row for row in rows) else ExitCode.OK
    return _written(rows, listener)


def _placed(task: Task, made: Path, files: Sequence[Path], as_json: bool) -> ExitCode:
    """Move the files of the target `made` into the folder of results, and print their paths."""
    wanted, moved = Wanted(task.out, made.name.removesuffix(f".{task.spec.name}"), task.spec.name), []
    with output_folder(task.out), OutputNames(task.out, task.overwrite) as names, answers(as_json) as answer:
        target = names.reserve(wanted)
        for file in files:
            final = task.out / f"{target.name}{str(file.relative_to(made.parent)).removeprefix(made.name)}"
            with writing(final):
                final.parent.mkdir(exist_ok=True)
                moved.append(Path(shutil.move(file, final)))
        there, earlier = settled(names.earlier(wanted, target), target, moved)
        for path in there:
            answer(f"{path}{earlier.words}", file=str(path))
    return ExitCode.OK


def _written(rows: "list[dict[str, str]]", listener: ShownAnswer) -> ExitCode:
    from engines.texts import TEXT

    code = ExitCode.OK
    for number, row in enumerate(rows):
        if "error" in row:
            warn(str(row["error"]))
            code = ExitCode.SOME_FAILED
            continue
        text = str(row.get(TEXT, ""))
        print(text[len(listener.text) :] if not number and text.startswith(listener.text) else text)
    return code


async def _run(task: Task, path: Path, listener: ShownAnswer) -> "JobOutcome":
    from pipelines.broker import Broker
    from schemas.jobs import Priority
    from workers.local import local_fleet
    from workers.run import run_jobs

    async with (
        local_fleet(task.settings, task.workers, listener) as fleet,
        Broker.connected(fleet, name="rigflow-run-text") as broker,
    ):
        subject = f"{broker.names.prefix}.deltas.{fleet.tenant}.{task.spec.name}.*"
        await broker.connection.nc.subscribe(subject, cb=listener.take)
        await broker.connection.flush()
        at_once, models = Priority.INTERACTIVE, task.models
        [outcome] = await run_jobs(
            fleet, task.spec, models, [path], path.parent, at_once, listener, variant=task.variant
        )
        return outcome
