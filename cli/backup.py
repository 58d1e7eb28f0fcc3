"""`rigflow backup` and `rigflow restore`: copies of what the broker holds, while the fleet works."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.text import say_json, stdout
from schemas.errors import ExitCode, OutputError, UsageError
from schemas.text import count, size

if TYPE_CHECKING:
    from schemas.settings import Settings

Folder = Annotated[Path, typer.Argument(help="Folder of the copy.", metavar="FOLDER")]


@on_fleet
def backup(
    folder: Folder,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Copy all streams of the fleet into a new folder, while it works.

    Work that moves on meanwhile is in two copies, and is done again after a restore, with the same results.

    Example: rigflow backup /mnt/backup/monday
    """
    from pipelines.broker import Broker
    from pipelines.snapshots import save_streams

    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is not a folder", "name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty", "name a new folder")

    async def copy() -> dict[str, int]:
        async with Broker.connected(settings, name="rigflow-backup") as broker:
            return await save_streams(broker, folder)

    copied = run_async(copy())
    if as_json:
        say_json([{"stream": name, "bytes": nbytes} for name, nbytes in copied.items()])
    else:
        stdout().print(f"{len(copied)} streams, {size(sum(copied.values()))}, are in {folder}")
    return ExitCode.OK


@on_fleet
def restore(
    folder: Folder,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Put the streams of a copy into an empty broker. Start workers and gateways when it has ended.

    A stream that the broker has already is not touched: the command ends with an error before it restores any. A copy
    that the broker refuses later leaves none.

    Example: rigflow restore /mnt/backup/monday
    """
    from pipelines.audit import audit
    from pipelines.broker import Broker
    from pipelines.snapshots import restore_streams

    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {why}", "name the folder that `rigflow backup` wrote")

    async def put() -> dict[str, int]:
        async with Broker.connected(settings, name="rigflow-restore") as broker:
            made = await restore_streams(broker, folder)
            await audit(broker, "streams-restored", count(len(made), "stream"))  # it is one of them
            return made

    made = run_async(put())
    if as_json:
        say_json([{"stream": name, "messages": messages} for name, messages in made.items()])
    else:
        stdout().print(f"{len(made)} streams with {sum(made.values()):,} messages are restored")
    return ExitCode.OK
