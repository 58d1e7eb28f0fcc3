"""Prints what its process was started with, in JSON; `tests.warm_process` forks one, too."""

import json
import os
import signal
import sys

if __name__ == "__main__":
    main = sys.modules["__main__"]
    streams = (sys.stdin, sys.stdout, sys.stderr)
    facts = {
        "forked": "onnx" in sys.modules,
        "words": sys.argv,
        "main": (main.__spec__.name, main.__file__, main.__package__),
        "path": sys.path,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "session": os.getsid(0) == os.getpid(),
        "group": os.getpgid(0) == os.getpid(),
        "parent": os.getppid(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],  # the last one is that of the listing
        "streams": [(each.encoding, each.errors, each.line_buffering, each.write_through) for each in streams],
        "seekable": [each.seekable() for each in streams[:2]],
        "threads": len(os.listdir("/proc/self/task")),
        "given": sys.stdin.read(),
    }
    json.dump(facts, sys.stdout)
    sys.stderr.write("errors go elsewhere")
    sys.exit(7)
