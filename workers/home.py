"""A rig's own folder: one rig of a name on a machine at a time, and nothing stays behind from one that was killed."""

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import StoreError, UsageError

HAND_BACK_S = 3.0


@contextmanager
def rig_home(folder: Path, name: str) -> Iterator[Path]:
    """Lock a rig's folder; its scratch folder, empty, and removed at the end.

    Raises UsageError when another rig of this name runs, StoreError when the folder is not writable.
    """
    scratch = folder / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"rig folder {folder}: {error.strerror}", "set `cache` to another folder") from error
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
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def end_leftovers(rig: str) -> list[int]:
    """End worker processes of `rig` whose supervisor is no more, in a second of their own to hand work back; their ids.

    The kernel ends them with their supervisor; this is for those that could not die then (in a driver, say).
    """
    found = leftovers(rig)
    for pid in found:
        _signal(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + HAND_BACK_S
    while leftovers(rig) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for pid in leftovers(rig):
        _signal(pid, signal.SIGKILL)
    return found


def leftovers(rig: str) -> list[int]:
    """Worker processes of `rig` that some supervisor started that is not their parent any more (Linux)."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is_leftover(entry, rig)]


def _is_leftover(entry: Path, rig: str) -> bool:
    try:
        command = (entry / "cmdline").read_bytes().split(b"\0")
        if command[1:3] != [b"-m", b"workers.process"]:
            return False
        options = json.loads(command[3])
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError, IndexError):  # it has ended meanwhile, or is not ours
        return False
    return options.get("rig") == rig and state != "Z" and int(parent) != options.get("parent")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
