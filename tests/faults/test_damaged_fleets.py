"""Law 3 on damaged media: three workers say of each file what one worker says, and none dies or hangs of it."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from pipelines.registry import builtin_pipeline
from schemas.rig import ALL_STAGES
from tests.damage import changed
from tests.fleet import ONE_WORKER, Fleet
from workers.inputs import JobOutcome

SPEC = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 0.3})  # most clips become several segments
THREE_WORKERS = (ALL_STAGES, ("decode", "infer"), ("resize", "encode", "collect"))
AT_ONCE = 200

Answer: TypeAlias = tuple[Any, ...]


def damaged_files(folder: Path, count: int, seed: int) -> list[Path]:
    """Writes `count` files."""
    paths = []
    for number in range(count):
        name, body = changed(random.Random(seed * 1_000_000 + number))
        paths.append(folder / f"{number:04}-{name}")
        paths[-1].write_bytes(body)
    return paths


def answers(stages: Iterable[tuple[str, ...]], paths: list[Path], folder: Path) -> list[Answer]:
    """What a fleet says of each file."""
    found: list[Answer] = []
    with Fleet(tuple(stages), folder / "cache", ack_wait_s=60.0) as fleet:
        for first in range(0, len(paths), AT_ONCE):
            found += map(answer, fleet.run(SPEC, paths[first : first + AT_ONCE], folder / str(first)))
        assert not fleet.revive(), "a worker died"
    return found


def answer(outcome: JobOutcome) -> Answer:
    """All that a job said: why it was refused, or its counts, failures, notes, digest, and the bytes of its arrays."""
    done = outcome.done
    if done is None:
        assert outcome.error is not None
        return outcome.inputs[0].name, "refused", str(outcome.error)
    arrays = {}
    for name in done.files:
        with np.load(outcome.target.parent / name) as file:
            arrays |= {key: (file[key].dtype.str, file[key].shape, file[key].tobytes()) for key in file.files}
    said = done.frames, done.lost, sorted(done.failures), done.missing, sorted(done.notes), done.digest
    return outcome.inputs[0].name, "failed" if done.failures else "lost" if done.lost else "whole", *said, arrays


@pytest.mark.parametrize(
    "count", [24, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=str
)
def test_one_worker_and_three_say_the_same_of_damaged_files(count: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    began = time.monotonic()
    (tmp_path / "in").mkdir()
    paths = damaged_files(tmp_path / "in", count, seed)
    one = answers(ONE_WORKER, paths, tmp_path / "one")
    three = answers(THREE_WORKERS, paths, tmp_path / "three")
    ends = Counter(end for _, end, *_ in one)
    print(f"\nfleets, seed {seed}: {count} files in {time.monotonic() - began:.0f} s: {dict(ends)}")
    assert len(one) == count
    assert [(a, b) for a, b in zip(one, three, strict=True) if a != b] == []
    assert min(ends[end] for end in ("whole", "lost", "refused")) > 0
