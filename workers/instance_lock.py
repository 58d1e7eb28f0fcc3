"""A rig's own folder: one rig of a name on a machine at a time, and nothing stays behind from one that was killed."""

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import StoreError, UsageError
from schemas.settings import CACHE_HINT
from workers.telemetry import Event, log_event

HAND_BACK_S = 3.0
SOCKET_FOLDER_BYTES = 70  # the fork server's socket is a file, and a socket's path has at most 107 bytes
HOME = "RIG_HOME"  # in the environment of a rig's worker processes: the folder of their rig


@contextmanager
def instance_lock(folder: Path, name: str) -> Iterator[Path]:
    """Lock a rig's folder, and end what an earlier rig left there; its scratch folder, empty, and removed at the end.

    Raises UsageError when another rig of this name runs, StoreError when the folder is not writable.
    """
    scratch = folder / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"rig folder {folder}: {error.strerror}", CACHE_HINT) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise UsageError(f"rig {name} runs here already (pid {owner})", "give this one another --name") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        shutil.rmtree(scratch, ignore_errors=True)  # what workers of a killed rig left
        scratch.mkdir()
        for left in folder.glob("pymp-*"):
            shutil.rmtree(left, ignore_errors=True)
        if len(os.fsencode(folder)) < SOCKET_FOLDER_BYTES:
            tempfile.tempdir = str(folder)  # so that a killed rig's socket is removed by the next
        for pid in end_leftovers(folder):
            log_event(Event("leftover", f"worker process {pid} of an earlier rig was still there", facts={"pid": pid}))
        os.environ[HOME] = str(folder)
        try:
            yield scratch
        finally:
            tempfile.tempdir = None
            shutil.rmtree(scratch, ignore_errors=True)


def end_leftovers(home: Path) -> list[int]:
    """End worker processes of an earlier rig in this folder, in a second of their own to hand work back; their ids.

    The kernel ends them with their supervisor; this is for those that could not die then (in a driver, say). Call it
    with the folder locked and no worker started, for then all that there are were left.
    """
    found = leftovers(home)
    for pid in found:
        _signal(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + HAND_BACK_S
    while leftovers(home) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for pid in leftovers(home):
        _signal(pid, signal.SIGKILL)
    return found


def leftovers(home: Path) -> list[int]:
    """Worker processes, and their fork server, of the rig in this folder, by their environment (Linux)."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is_leftover(entry, home)]


def _is_leftover(entry: Path, home: Path) -> bool:
    try:
        environment = (entry / "environ").read_bytes().split(b"\0")
        state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended meanwhile, or is another user's
        return False
    return os.fsencode(f"{HOME}={home}") in environment and state != "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
