"""`python -m tests.memory_growth FILE`: decodes a file, and prints why it cannot be and the MiB that it took."""

import resource
import subprocess
import sys
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
    command = [sys.executable, "-m", __name__, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    words, grown = ran.stdout.rsplit("\n", 2)[:2]
    return words, int(grown)


def decode(path: Path) -> None:
    """Decodes what is at `path`, as a publisher and a worker do together."""
    if kind_of(path) == "image":
        decode_image(path.read_bytes())
        return
    with Splitter(path, pipeline().grid, 1.0) as splitter:
        for segment_data in splitter.segments():
            list(decode_video(segment_data.segment(KEY), segment_data.buffers, decode_plan(pipeline()), pack_frame))


if __name__ == "__main__":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(Path(sys.argv[1]))
        print()
    except (MediaError, ItemTooLarge) as error:
        print(error)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
