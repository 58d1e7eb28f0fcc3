"""The text of a transcript as it comes: in order, and whole although results are deleted before they are read."""

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("fastapi")

import numpy as np

from engines.part import pack_arrays
from gateway.openai.transcripts import TextInOrder
from pipelines.broker import Stored
from pipelines.job_events import PartMade
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartHeader, PartMeta
from schemas.results import Result
from schemas.subjects import Names

JOB = JobRef(id="j", pipeline="transcribe", revision="0")
TEXTS = ["one two", "", "three", "four"]


class Results:
    """A stream of results of which some are gone."""

    names = Names()

    def __init__(self, gone: set[int]) -> None:
        self._gone = gone

    async def message(self, stream: str, sequence: int) -> Stored | None:
        if sequence in self._gone:
            return None
        rows = "".join(json.dumps({"text": text}) for text in [TEXTS[sequence]] if text).encode()
        specs, buffers = pack_arrays({"rows": np.frombuffer(rows, np.uint8)})
        meta = PartMeta(key=Key(job=JOB, segment=sequence), media=MediaInfo(kind="audio", name="x"))
        result = Result(meta=meta, format="transcript", arrays=specs)
        return Stored("results", sequence, {}, result.encode(buffers))


async def given(order: list[int], gone: set[int]) -> tuple[list[str], str]:
    """What is given as parts come in this order, and at the end."""
    results: Any = Results(gone)
    text, made = TextInOrder(results, "main"), list[str]()
    for segment in order:
        part = PartMade(segment, PartHeader(0, segment, 0, True, segment == 3, 1, 0))
        made += [new async for new in text.take(part)]
    return made, text.finish("one two three four")


@pytest.mark.parametrize(
    ("order", "gone", "expected", "rest"),
    [
        ([0, 1, 2, 3], set(), ["one two", " three", " four"], ""),
        ([3, 2, 0, 1], set(), ["one two", " three", " four"], ""),
        ([0, 1, 2, 3], {3}, ["one two", " three"], " four"),
        ([0, 1, 2, 3], {2}, ["one two"], " three four"),
        ([0, 1, 2, 3], {0}, [], "one two three four"),
    ],
    ids=["in order", "in another order", "the last is gone", "one between is gone", "the first is gone"],
)
def test_the_pieces_together_are_the_text(order: list[int], gone: set[int], expected: list[str], rest: str) -> None:
    assert asyncio.run(given(order, gone)) == (expected, rest)
