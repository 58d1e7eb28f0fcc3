"""`rigflow rig --join`: makes this machine part of a fleet, by a token, once."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.interrupts import run_async
from cli.text import warn
from schemas.errors import OutputError, UsageError
from schemas.text import without_passwords

if TYPE_CHECKING:
    from schemas.join_tokens import RigAccess
    from schemas.settings import Settings

SETTINGS, SEED, CA = "settings.toml", "worker.nk", "ca.pem"


def joined_folder() -> Path:
    """The folder of what a join gave; only its user can read it."""
    from schemas.settings import home_folder

    return home_folder() / ".local" / "share" / "rigflow" / "joined"


def joined_settings() -> Path | None:
    """The settings file of the fleet that this machine joined; None where it joined none."""
    file = joined_folder() / SETTINGS
    return file if file.exists() else None


def join(settings: "Settings", token: str) -> Path:
    """Join the fleet at `settings.nats`: returns the settings file, written with the seed and the CA beside it.

    On a machine that joined by this token already, nothing is asked. Raises UsageError, BrokerError, OutputError.
    """
    from pipelines.join_tokens import TokenText, read_access, use_up

    text = TokenText.parse(token)
    folder = joined_folder()
    file = folder / SETTINGS
    mark = f"# joined by token {text.id}\n"
    with contextlib.suppress(OSError):
        if file.read_text().startswith(mark):
            return file
    if file.exists():
        raise UsageError(f"this machine joined a fleet before: {file}", f"remove the folder {folder} to join another")

    if folder.is_symlink() or (any(folder.iterdir()) if folder.is_dir() else folder.exists()):
        raise UsageError(
            f"{folder} is left from an earlier join, without {SETTINGS}", "remove it; the token is not used"
        )

    async def joined() -> None:
        access = await read_access(settings, text)
        with _written(settings, access, folder, mark) as verified:
            await use_up(verified, text)

    run_async(joined())
    warn(f"joined the fleet at {without_passwords(settings.nats)}: what this machine got is in {folder}")
    return file


@contextlib.contextmanager
def _written(settings: "Settings", access: "RigAccess", folder: Path, mark: str) -> "Iterator[Settings]":
    """Write what a rig needs beside `folder`, and move it there at the end; yields settings that trust the CA."""
    from pipelines.local_access import write_private

    new = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        new.mkdir(mode=0o700, parents=True)
        values = {"nats": settings.nats, "inbox": access.inbox, "prefix": access.prefix}
        values |= {key: getattr(settings, key) for key in ("tls_cert", "tls_key", "tls_ca") if getattr(settings, key)}
        if access.seed:
            write_private(new / SEED, access.seed + "\n")
            values["credentials"] = str(folder / SEED)
        if access.tls_ca and not settings.tls_ca:
            write_private(new / CA, access.tls_ca)
            values["tls_ca"] = str(folder / CA)
            settings = settings.model_copy(update={"tls_ca": str(new / CA)})
        lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
        write_private(new / SETTINGS, mark + "".join(lines))
        yield settings
        new.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or new}: {error.strerror}") from error
    finally:
        for left in new.glob("*"):
            left.unlink()
        with contextlib.suppress(OSError):
            new.rmdir()
