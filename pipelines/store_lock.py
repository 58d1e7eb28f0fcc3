"""The folder of an embedded broker: private to its owner, and locked by one rigflow at a time."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from engines.scratch import ScratchFolder
from schemas.errors import StoreError


def temporary_folder() -> ScratchFolder:
    """A new temporary folder that only its owner can read. Raises StoreError."""
    try:
        return ScratchFolder("store")
    except OSError as error:
        raise StoreError(f"no temporary store: {error.strerror}", "choose a folder with --store, or TMPDIR") from error


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, also when it was there before."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def lock_store(store: Path) -> IO[str]:
    """Lock a store, and write our pid into the lock file. Raises StoreError when another process has it locked.

    nats-server itself does not lock it: two servers on one store would damage it.
    """
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(store / ".lock", "a+", opener=open_private)  # noqa: SIM115, it is held as long as the server runs
    except OSError as error:
        raise StoreError(f"store {store}: {error.strerror}", "choose another folder with --store") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        hint = "stop that one, use it with --nats, or choose another --store"
        raise StoreError(f"store {store} is locked by another rigflow (pid {owner})", hint) from None
    with suppress(OSError):  # the disk is full: the lock holds, but the file has no pid
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
