"""What the system says of a worker process: its memory, how it ended, and when to start it again."""

import resource
import signal

from workers.forkserver import LOST

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process without pages of files; 0 when it has ended (Linux)."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            fields = statm.read().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code == LOST:
        return "its fork server ended"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def restart_pause_s(failures: int) -> float:
    """Seconds before a worker is started again after so many failures."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 10))
