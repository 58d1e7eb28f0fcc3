"""Imported by the fork server before it forks workers, which then share the memory of these modules.

multiprocessing imports this module by name in the fork server; nothing else imports it.
"""

import gc
import os
import signal

from workers.forkserver import begin_session, end_with_parent

end_with_parent()
begin_session()  # Ctrl-C at a terminal is for the supervisor alone
# a SIGTERM to the whole group must not end the fork server before its workers; a new worker unblocks it
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks must have no threads
gc.disable()  # next to nothing of what imports make is garbage, and looking for it takes a tenth of their time

import uvloop  # noqa: E402, F401

import engines.inference.onnxruntime  # noqa: E402
import engines.inference.own_kernels  # noqa: E402
import engines.media.animation  # noqa: E402
import engines.media.images  # noqa: E402
import engines.media.split  # noqa: E402
import engines.outputs.columns  # noqa: E402, F401
import workers.process  # noqa: E402, F401

gc.freeze()  # a collection would write to these objects, and so copy their memory
gc.enable()
