"""What a process decodes of a file, and the MiB that it takes, measured in processes that hold the imports already.

`python -m tests.memory_growth` forks one of them for each path that it reads, and answers in a line of json.
"""

import atexit
import json
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.images import decode_image
from engines.media.split import Splitter
from schemas.errors import ItemTooLarge, MediaError
from schemas.jobs import JobRef, Key
from tests.kinds import kind_of
from tests.plans import decode_plan
from tests.unit.media_passes import pipeline

KEY = Key(job=JobRef(id="job", pipeline="test", revision="0"), segment=0, final=True)


def outcome_of(path: Path) -> tuple[str, int]:
    """What `decode` raises in a process of its own, and by how many MiB that process grows."""
    process = _forking()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    words, grown = json.loads(process.stdout.readline())
    return words, grown


@cache
def _forking() -> "subprocess.Popen[str]":
    """The process that forks. It decodes nothing itself, so it has no threads, and stays small."""
    command = [sys.executable, "-m", __name__]
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)

    def end() -> None:
        process.communicate()

    atexit.register(end)
    return process


def decode(path: Path) -> None:
    """Decodes what is at `path`, as a publisher and a worker do together."""
    if kind_of(path) == "image":
        decode_image(path.read_bytes())
        return
    with Splitter(path, pipeline().grid, 1.0) as splitter:
        for segment_data in splitter.segments():
            list(decode_video(segment_data.segment(KEY), segment_data.buffers, decode_plan(pipeline()), pack_frame))


def _measured(path: Path) -> tuple[str, int]:
    before, words = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, ""
    try:
        decode(path)
    except (MediaError, ItemTooLarge) as error:
        words = str(error)
    return words, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            print(json.dumps(_measured(Path(line.removesuffix("\n")))), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{line}: the process that decoded it crashed")
