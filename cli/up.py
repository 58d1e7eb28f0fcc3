"""`rigflow up`: a broker and workers on this machine, kept running until a signal stops them."""

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import answered_otherwise, run_async
from cli.options import (
    UP_PORT,
    Credentials,
    NatsUrl,
    SettingsFile,
    Store,
    check_workers,
    default_store,
    ends_well,
    settings_from,
)
from cli.text import cell, cells, stderr, stdout
from schemas.errors import ExitCode
from schemas.text import count, without_passwords

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.settings import Settings
    from workers.run import ProgressListener


STOPPING = "stopping: workers finish their messages; press Ctrl-C again to return them unfinished"


@ends_well
def up(
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes. Default: one a core.", metavar="N")
    ] = None,
    store: Store = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Port of the broker; 0: any. Default: {UP_PORT}.")
    ] = None,
    nats: NatsUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Keep a broker and workers running on this machine.

    Until Ctrl-C or SIGTERM; a process that dies is started again. The broker serves this machine only and keeps its
    work in --store, over restarts too. With --nats the workers join that broker instead. At the end workers finish
    their messages; after a second Ctrl-C they return them.

    Example: rigflow up --workers 4
    """
    from engines.machine import cores

    settings = settings_from(settings_file, nats=nats, store=store, port=port, credentials=credentials)
    if not settings.store:
        settings = settings.model_copy(update={"store": str(default_store())})
    if port is None and settings.port == 0:
        settings = settings.model_copy(update={"port": UP_PORT})
    workers = cores() if workers is None else workers
    check_workers(workers)
    return run_async(_up(settings, workers))


async def _up(settings: "Settings", workers: int) -> ExitCode:
    from workers.definitions import register_builtin
    from workers.local import local_fleet

    signals = _StopSignals()
    console = _console()
    try:
        async with local_fleet(settings, workers, _listener(settings), settings.stop_grace_s) as fleet:
            names = await register_builtin(fleet, ours=not settings.nats)
            _greet(console, fleet, settings, workers, names)
            await signals.first.wait()
            answered_otherwise()
            console.print(STOPPING)
    except asyncio.CancelledError:
        if signals.by is None:  # Ctrl-C before our handler was installed
            raise
        console.print("stopped at once: unfinished messages are back in their queues")
    return ExitCode.INTERRUPTED if signals.by is signal.SIGINT else ExitCode.OK


def _console() -> "Console":
    """stdout; a terminal gets its lines broken between words."""
    console = stdout()
    console.soft_wrap = not console.is_terminal
    return console


def _listener(settings: "Settings") -> "ProgressListener":
    """What shows events: lines on stderr, or lines of a log where settings ask for json."""
    from cli.progress import LoggedProgress, Progress
    from schemas.settings import LogFormat
    from workers.telemetry import set_up_logging

    if settings.log_format is not LogFormat.JSON:
        return Progress(stderr())
    set_up_logging(settings)
    return LoggedProgress(stderr())


class _StopSignals:
    """Handles SIGINT and SIGTERM: the first sets `first`, the second cancels the task that created this object."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.by: signal.Signals | None = None
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number)

    def _hear(self, number: signal.Signals) -> None:
        if self.by is not None and self._task is not None:
            self._task.cancel()
        self.by = self.by or number
        self.first.set()


def _greet(console: "Console", fleet: "Settings", settings: "Settings", workers: int, pipelines: list[str]) -> None:
    """Print the URL, the folder and the pipelines, and examples of commands."""
    url = without_passwords(fleet.nats)
    kept = "" if settings.nats else f", its work kept in {settings.store}"
    console.print(cells(("rigflow is up", "bold green"), (" on ", ""), (url, "bold"), (kept, "")))
    console.print(f"{count(workers, 'worker')}, pipelines that the broker knows: {', '.join(pipelines)}")
    console.print("\nIn another terminal:")
    first = "fingerprint" if "fingerprint" in pipelines else pipelines[0]
    here = "" if url.endswith(f"//127.0.0.1:{UP_PORT}") else f" --nats {url}"
    for command, why in (
        (f"rigflow run {first} FILE --nats {url}", "publish a file, wait, and write the results here"),
        (f"rigflow publish {first} FILE{here}", "publish a file, and do not wait"),
        (f"rigflow status{here}", "queues and workers"),
    ):
        console.print(cell(f"  # {why}", "dim"), cell(f"  {command}"), sep="\n", soft_wrap=True)
    console.print("\nCtrl-C stops it.")
