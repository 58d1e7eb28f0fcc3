"""`rigflow up`: a broker and workers on this machine, kept alive until told to stop."""

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ExitCode
from schemas.settings import Settings
from workers.cli.options import UP_PORT, Credentials, NatsUrl, SettingsFile, Store, ends_well, settings_from

if TYPE_CHECKING:
    from workers.local import Screen

DRAIN_S = 25.0  # workers finish what they hold within 20 s, or hand it back


@ends_well
def up(
    workers: Annotated[int | None, typer.Option(min=0, help="Worker processes. Default: one a core.")] = None,
    store: Store = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Port of the broker; 0: any. Default: {UP_PORT}.")
    ] = None,
    nats: NatsUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Start a broker and workers on this machine, and keep them running until Ctrl-C or SIGTERM.

    The broker listens on this machine only, and keeps its work in --store over restarts. With --nats the workers
    join that broker instead. At the end workers finish what they hold; a second Ctrl-C has them hand it back.

    Example: rigflow up --workers 4
    """
    settings = settings_from(settings_file, nats=nats, store=store, port=port, credentials=credentials)
    if not settings.store:
        settings = settings.model_copy(update={"store": str(Path.home() / ".local" / "share" / "rigflow" / "store")})
    if port is None and settings.port == 0:
        settings = settings.model_copy(update={"port": UP_PORT})
    return asyncio.run(_up(settings, (os.cpu_count() or 1) if workers is None else workers))


async def _up(settings: Settings, workers: int) -> ExitCode:
    from rich.console import Console

    from workers.local import local_fleet, register_builtin

    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    console = Console(highlight=False)
    ...
