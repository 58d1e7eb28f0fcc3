"""A fleet on this machine: a local broker, unless there is one, and worker processes."""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from engines.machine import find_gpu
from pipelines.server import EmbeddedServer, embedded
from schemas.errors import RigflowError, StoreError, first_error
from schemas.rig import ALL_STAGES
from schemas.settings import CACHE_HINT, LogLevel, Settings
from workers.options import WorkerOptions
from workers.run import ProgressListener
from workers.supervisor import Supervisor
from workers.telemetry import Event

LOOK_S = 2.0  # how often the embedded broker is asked for its health


@asynccontextmanager
async def local_fleet(
    settings: Settings, workers: int, listener: ProgressListener, grace_s: float = 2.0
) -> AsyncIterator[Settings]:
    """A broker (unless settings name one) and `workers` worker processes; yields settings that reach them.

    Raises UsageError before it starts anything if the workers' device is not here. Ends the block with an error when
    the broker cannot be started again, or no worker is left.
    """
    if workers:
        _check_cache(settings.cache_folder)
        if settings.device != "cpu":
            find_gpu(settings.device)
    async with AsyncExitStack() as stack:
        server: EmbeddedServer | None = None
        if not settings.nats:
            server = await stack.enter_async_context(running(embedded(settings)))
            settings = settings.model_copy(
                update={"nats": server.url, "shared": ("/",), "credentials": str(server.password_file)}
            )
        options = [
            WorkerOptions(settings=settings, stages=ALL_STAGES, name=f"local-{n + 1}", device=settings.device)
            for n in range(workers)
        ]
        over, least = False, _least_level(settings)

        def show(event: Event) -> None:
            if event.level >= least and not over:  # after the block, events of ending workers do not matter
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
            await supervisor.stop(grace_s)


@asynccontextmanager
async def running(server: EmbeddedServer) -> AsyncIterator[EmbeddedServer]:
    """A block in which a broker runs; no event loop waits for its start or its end."""
    await _start(server)
    try:
        yield server
    finally:
        server.give_up()  # a restart that is under way
        await asyncio.to_thread(server.stop)


def _least_level(settings: Settings) -> int:
    """Of events that are shown: warnings, with log_level debug all, and no more than log_level allows."""
    if settings.log_level is LogLevel.DEBUG:
        return logging.DEBUG
    return max(logging.WARNING, logging.getLevelNamesMapping()[settings.log_level.upper()])


async def _start(server: EmbeddedServer) -> None:
    """Start the broker. A task that is cancelled meanwhile leaves no broker, store or password file behind."""
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        server.give_up()  # a broker may take a minute to be ready
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
