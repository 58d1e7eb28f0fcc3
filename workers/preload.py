"""What the fork server imports before it forks workers: they share these modules, and the memory of them.

The library imports this module by name in the fork server, and nowhere else.
"""

import gc
import os
import signal

from workers.forkserver import end_with_parent

end_with_parent()
os.setsid()  # Ctrl-C at a terminal is for the supervisor alone
# a signal to the whole group ends the workers, and they drain first; one that a new worker gets waits until it can act
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks must have no threads; workers need none

import uvloop  # noqa: E402, F401

import workers.process  # noqa: E402, F401

gc.freeze()  # a collection would write to these objects, and so copy their memory
