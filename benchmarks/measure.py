"""CPU seconds and resident memory of this process and all its descendants, from /proc."""

import os
import resource
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int | None = None) -> list[int]:
    """Pids of a process and all its descendants."""
    root = root or os.getpid()
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_s(pids: list[int]) -> dict[int, float]:
    """CPU seconds each process has used, its reaped children included."""
    return _times(pids, 4)


def own_cpu_s(pids: list[int]) -> dict[int, float]:
    """CPU seconds each process has used by itself."""
    return _times(pids, 2)


def _times(pids: list[int], fields: int) -> dict[int, float]:
    used = {}
    for pid in pids:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            used[pid] = sum(map(int, line[11 : 11 + fields])) / TICKS
    return used


def forget_peaks(pids: list[int]) -> None:
    """Let each process's peak of resident memory start again from what it holds now."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pids: list[int]) -> int:
    """Sum of these processes' peaks of resident memory; shared pages count once a process."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    total += int(line.split()[1]) * 1024
    return total


def role_of(pid: int) -> str:
    """What a process is in a rigflow run: `broker`, `workers`, or `publisher` (which collects too)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return "broker" if b"nats-server" in command else "workers" if b"workers.preload" in command else "publisher"


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of all these processes; shared pages count once a process."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        except OSError:
            continue
    return total
