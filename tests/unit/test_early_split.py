"""The first segment of a file is cut before its job is begun; the rest as it is asked for."""

import asyncio
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines.media.segment_data import SegmentData
from pipelines.early_split import MOST_BYTES, EarlySplit
from pipelines.registry import builtin_pipeline
from schemas.errors import MediaError
from schemas.settings import Settings
from workers.inputs import look_at, split_early


def some(count: int, made: list[int], error: Exception | None = None) -> Iterator[SegmentData]:
    """`count` segments, each noted in `made` as it is made, then an error."""
    for number in range(count):
        made.append(number)
        yield cast(SegmentData, SimpleNamespace(number=number))
    if error is not None:
        raise error


def numbers(segments: Iterator[Any]) -> Sequence[int]:
    return [segment.number for segment in segments]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_it_gives_all_segments_and_makes_only_the_first_in_advance(count: int) -> None:
    made: list[int] = []
    early = await EarlySplit(some(count, made)).ready()
    assert made == [*range(count)][:1]
    assert numbers(await early.ready()) == made == [*range(count)]


@pytest.mark.parametrize("count", [0, 2])
async def test_an_error_comes_where_its_segment_would(count: int) -> None:
    early = await EarlySplit(some(count, [], MediaError("it is damaged"))).ready()
    assert [next(early).number for _ in range(count)] == [*range(count)]  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match="it is damaged"):
        next(early)


async def test_an_error_of_a_job_that_is_not_sent_is_raised_nowhere() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    await EarlySplit(some(0, [], MediaError("it is damaged"))).ready()
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []


async def test_only_one_small_file_is_cut_early(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jpg", tmp_path / "large.jpg"
    for path, size in ((small, 100), (large, MOST_BYTES + 1)):
        with path.open("wb") as file:
            file.write(b"\xff\xd8\xff\xe0")
            file.truncate(size)
    spec = builtin_pipeline("fingerprint")
    cut = [split_early(Settings(), spec, look_at(paths, spec)) for paths in ([small], [large], [small, large])]
    assert [early is not None for early in cut] == [True, False, False]
    assert cut[0] is not None
    await cut[0].ready()
