"""Vectors of texts and pictures, made by workers through the pipelines `embed-text` and `embed`; no job in the list."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engines.media.albums import album_segments
from engines.media.segment_data import SegmentData
from engines.part import Array
from gateway.callers import Caller
from pipelines.asking import Answered, Asker
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.variants import publish_as_needed
from schemas.errors import UsageError
from schemas.media import Item
from schemas.model import ModelSpec

TEXTS, PICTURES = "embed-text", "embed"  # the pipelines
Vectors = tuple[dict[int, Array], int]  # by the numbers of their inputs, and the tokens in them


@dataclass(frozen=True, slots=True)
class Embedding:
    """Has workers embed the inputs of one request by one model."""

    asker: Asker
    broker: Broker
    caller: Caller
    card: ModelSpec

    async def texts(self, inputs: Mapping[int, bytes]) -> Vectors:
        """The vectors of texts in UTF-8. Raises UsageError for a wrong one."""
        return await self._vectors(TEXTS, "text", inputs)

    async def pictures(self, inputs: Mapping[int, bytes]) -> Vectors:
        """The vectors of pictures, in any format that rigflow reads. Raises UsageError for a wrong one."""
        return await self._vectors(PICTURES, "image", inputs)

    async def _vectors(self, pipeline: str, kind: str, inputs: Mapping[int, bytes]) -> Vectors:
        if not inputs:
            return {}, 0
        of_model = builtin_pipeline(pipeline).with_model(self.card.name)
        spec = await publish_as_needed(self.broker, of_model, {self.card.name: self.card})
        items = ((Item(name=str(number)), data) for number, data in inputs.items())
        segments: list[SegmentData] = list(album_segments(kind, items, len(inputs)))
        found = await self.asker.ask(spec, segments, self.caller.tenant, self.caller.name)
        return dict(_rows(found)), sum(each.meta.tokens for each in found)


def _rows(found: Sequence[Answered]) -> Iterator[tuple[int, Array]]:
    """The vectors of parts by the numbers of their inputs. Raises UsageError for an input that has none."""
    for part in found:
        vectors = iter(part.arrays.get("embedding", ()))
        for item in part.meta.items:
            if item.error:
                raise UsageError(f"input {item.name}: {item.error}")
            yield int(item.name), next(vectors)
