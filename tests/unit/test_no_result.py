"""A media that failed leaves no file, and is no result that equals another one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engines.encoding import Origin
from engines.part import pack_arrays
from pipelines.collecting import CollectedJob
from schemas.media import Item
from schemas.results import Result
from tests.unit.outputs_parts import IMAGES, JOB, VIDEO, format_of, make_part


async def collected(target: Path, name: str, items: Sequence[Item]) -> tuple[list[Path], tuple[str, ...]]:
    """The files and failures of a job of images, or of a film of which no frame is whole and no window is left."""
    job = CollectedJob(JOB, target, asyncio.get_running_loop().create_future(), Origin("0", {}))
    format_ = format_of(name)
    whole = sum(not item.error for item in items)
    part = make_part(IMAGES if items else VIDEO, {"score": np.zeros((whole, 3), np.float32)}, [0] * whole, items=items)
    meta = part.meta.model_copy(update={"frames": whole, "lost": len(items) - whole})
    encoded = format_.encode(part)
    specs, buffers = pack_arrays(encoded.arrays)
    result = Result(meta=meta, format=name, arrays=specs, facts=encoded.facts)
    job.add(result, [memoryview(each).cast("B") for each in buffers], format_)
    files = job.close()
    return files, job.done(files).failures


@pytest.mark.parametrize("name", ["npz", "jsonl"])
def test_what_failed_whole_has_no_file(tmp_path: Path, name: str) -> None:
    bad, good = Item(name="bad.jpg", error="it is truncated"), Item(name="good.jpg")
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "images"
    assert asyncio.run(collected(target, name, [bad])) == ([], ("bad.jpg: it is truncated",))
    files, (reason,) = asyncio.run(collected(target, name, []))
    assert (files, reason[:30]) == ([], "no frame that it looks at coul")
    assert not any(target.parent.iterdir())
    files, failures = asyncio.run(collected(target, name, [bad, good]))
    assert (files, failures) == ([target.with_name(f"images.{name}")], ("bad.jpg: it is truncated",))
