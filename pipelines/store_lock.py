"""The folder of an embedded broker: private to its owner, and locked by one rigflow at a time."""

import fcntl
import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from engines.scratch import ScratchFolder
from schemas.errors import StoreError
from schemas.text import size


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
        os.write(lock.fileno(), f"{os.getpid()}\n".encode())  # without a buffer, which would be written again later
    return lock


def check_room(store: Path, nbytes: int) -> None:
    """Raise StoreError if the disk of a store has less than `nbytes` free, or a limit forbids files of that size."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if most != resource.RLIM_INFINITY and most < nbytes:
        what = f"a limit of the shell allows files of {size(most)}, and the broker needs {size(nbytes)}"
        raise StoreError(what, "raise it: ulimit -f unlimited")
    if (free := shutil.disk_usage(store).free) < nbytes:
        what = f"store {store}: its disk has {size(free)} free, and the broker needs {size(nbytes)}"
        raise StoreError(what, "free some, or choose another folder with --store")
