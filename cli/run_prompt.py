"""`rigflow run chat -`: a text from standard input, its answer on standard output, on a terminal as it is written."""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cli.text import warn
from engines.scratch import scratch_folder
from pipelines.growing_answer import GrowingAnswer
from schemas.errors import ExitCode, MediaError, MessageError, RigflowError, UsageError
from schemas.messages import decode
from schemas.results import Delta

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from schemas.parts import PartMeta
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models
    from workers.inputs import JobOutcome

MOST_BYTES = 64 << 20  # of standard input


class ShownAnswer:
    """Writes new text to a terminal as it comes; the first answer of one job alone."""

    def __init__(self, shows: bool) -> None:
        self._shows = shows
        self._job = ""
        self._place: tuple[int, int, int] | None = None
        self._answer = GrowingAnswer()

    def planned(self, outcomes: "list[JobOutcome]") -> None:
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


def run_prompt(settings: "Settings", spec: "PipelineSpec", models: "Models", workers: int, variant: bool) -> ExitCode:
    """Run a pipeline of text over standard input, before bulk work. Raises UsageError, MediaError."""
    given = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(given) > MOST_BYTES or not given.strip():
        what = "has nothing in it" if len(given) <= MOST_BYTES else f"has more than {MOST_BYTES >> 20} MiB"
        raise MediaError(f"standard input {what}", "give a question, or lines of JSON, see docs/text.md")
    listener = ShownAnswer(sys.stdout.isatty())
    with scratch_folder("prompt") as folder:
        path = folder / ("stdin.jsonl" if given.lstrip().startswith(b"{") else "stdin.txt")
        path.write_bytes(given)
        try:
            outcome = asyncio.run(_run(settings, spec, models, path, workers, variant, listener))
            if outcome.done is None:
                raise outcome.error or MediaError("standard input has no answer", "see docs/chat.md")
        except RigflowError as error:
            error.what, error.hint = (_without_path(text, path) for text in (error.what, error.hint))
            raise
        names = [folder / name for name in outcome.done.files]
        rows = [json.loads(line) for name in names if name.suffix == ".jsonl" for line in name.read_text().splitlines()]
    if not rows:
        raise UsageError(f"pipeline {spec.name} writes no text", "give files as INPUT instead of -")
    return _written(rows, listener)


def _without_path(text: str, path: Path) -> str:
    """A text about the file that has what came by standard input."""
    for name in (str(path.resolve()), str(path), path.name):
        text = text.replace(name, "standard input")
    return text


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


async def _run(
    settings: "Settings",
    spec: "PipelineSpec",
    models: "Models",
    path: Path,
    workers: int,
    variant: bool,
    listener: ShownAnswer,
) -> "JobOutcome":
    from pipelines.broker import Broker
    from schemas.jobs import Priority
    from workers.local import local_fleet
    from workers.run import run_jobs

    async with (
        local_fleet(settings, workers, listener) as fleet,
        Broker.connected(fleet, name="rigflow-run-text") as broker,
    ):
        subject = f"{broker.names.prefix}.deltas.{fleet.tenant}.{spec.name}.*"
        await broker.connection.nc.subscribe(subject, cb=listener.take)
        await broker.connection.flush()
        at_once = Priority.INTERACTIVE
        [outcome] = await run_jobs(fleet, spec, models, [path], path.parent, at_once, listener, variant=variant)
        return outcome
