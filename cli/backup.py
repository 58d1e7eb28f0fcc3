"""`rigflow backup` and `rigflow restore`: copies of what the broker holds, while the fleet works."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.text import say_json, size, stdout
from schemas.errors import ExitCode, OutputError, StoreError, UsageError
from schemas.text import count

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
    from pipelines.snapshots import save_stream, streams_of

    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is not a folder", "name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty", "name a new folder")

    async def copy() -> list[dict[str, object]]:
        async with Broker.connected(settings, name="rigflow-backup") as broker:
            return [
                {"stream": name, "bytes": await save_stream(broker, name, folder / name)}
                for name in await streams_of(broker)
            ]

    copied = run_async(copy())
    if as_json:
        say_json(copied)
    else:
        total = sum(int(str(each["bytes"])) for each in copied)
        stdout().print(f"{len(copied)} streams, {size(total)}, are in {folder}")
    return ExitCode.OK


@on_fleet
def restore(
    folder: Folder,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Put the streams of a copy into an empty broker. Start workers and gateways when it has ended.

    A stream that the broker has already is not touched: the command ends with an error before it restores any.

    Example: rigflow restore /mnt/backup/monday
    """
    from pipelines.audit import audit
    from pipelines.broker import Broker
    from pipelines.snapshots import restore_stream, saved, streams_of

    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {why}", "name the folder that `rigflow backup` wrote")
    copies = saved(folder)

    async def put() -> list[dict[str, object]]:
        async with Broker.connected(settings, name="rigflow-restore") as broker:
            there = set(await streams_of(broker)) & {each.name for each in copies}
            if there:
                what = f"the broker has {len(there)} of these streams, {min(there)} first"
                raise StoreError(what, "restore into a broker with an empty store: see docs/backup.md")
            made = [{"stream": each.name, "messages": await restore_stream(broker, each)} for each in copies]
            await audit(broker, "streams-restored", count(len(made), "stream"))  # it is one of them
            return made

    made = run_async(put())
    if as_json:
        say_json(made)
    else:
        total = sum(int(str(each["messages"])) for each in made)
        stdout().print(f"{len(made)} streams with {total:,} messages are restored")
    return ExitCode.OK
