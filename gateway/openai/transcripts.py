"""Transcripts of the fleet in OpenAI's form."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from engines.part import unpack_arrays
from pipelines.blobs import load
from pipelines.broker import Broker
from pipelines.growing_answer import GrowingAnswer
from pipelines.job_events import PartMade
from schemas.errors import MessageError, StoreError
from schemas.messages import decode
from schemas.results import Result

_SEGMENT = ("start", "end", "text", "avg_logprob", "compression_ratio", "no_speech_prob")
_WORD = ("word", "start", "end")


def plain(found: dict[str, Any]) -> str:
    """The text of a transcript."""
    return " ".join(segment["text"].strip() for segment in found["segments"]).strip()


def usage_of(found: dict[str, Any]) -> dict[str, Any]:
    """What a transcript is charged by: the seconds of its sound."""
    return {"type": "duration", "seconds": round(found.get("duration", 0.0))}


def verbose(found: dict[str, Any], task: str) -> dict[str, Any]:
    """OpenAI's `verbose_json`: segments and words; fields that only its decoder has are left out, or neutral."""
    segments = [
        {"id": number, "seek": 0, "tokens": [], "temperature": 0.0, **{name: segment.get(name) for name in _SEGMENT}}
        for number, segment in enumerate(found["segments"])
    ]
    words = [
        {name: word[name].strip() if name == "word" else word[name] for name in _WORD}
        for segment in found["segments"]
        for word in segment.get("words") or ()
    ]
    return {
        "task": task,
        "language": found.get("language") or "",
        "duration": found.get("duration", 0.0),
        "text": plain(found),
        "segments": segments,
        "words": words,
        "usage": usage_of(found),
    }


class TextInOrder:
    """The text of parts, in the order of the media, as soon as all before it is there.

    A collector deletes the results of a job that is done: after one that was not read in time nothing more is given,
    and `finish` gives the rest.
    """

    def __init__(self, broker: Broker, tenant: str) -> None:
        self._broker, self._tenant = broker, tenant
        self._waiting: dict[tuple[int, int], PartMade] = {}
        self._next: tuple[int, int] | None = (0, 0)  # None: a result was deleted before it was read
        self._shown = GrowingAnswer()

    async def take(self, part: PartMade) -> AsyncIterator[str]:
        """Take a part that is at the broker, and give the text that is next in order."""
        self._waiting[part.header.segment, part.header.part] = part
        while self._next is not None and (ready := self._waiting.pop(self._next, None)) is not None:
            segment, number = self._next
            self._next = (segment + 1, 0) if ready.header.last else (segment, number + 1)
            text = await self._text(ready)
            if text is None:
                self._next = None
            elif text:
                yield self.finish(" ".join(filter(None, (self._shown.text, text))))

    def finish(self, text: str) -> str:
        """Take the entire text, and return what is new in it."""
        return self._shown.finish(text)

    async def _text(self, part: PartMade) -> str | None:
        """The text of a part; None where its result is gone."""
        stored = await self._broker.message(self._broker.names.results_of(self._tenant), part.sequence)
        if stored is None:
            return None
        with suppress(MessageError, StoreError):
            message, buffers = decode(await load(self._broker, stored))
            if isinstance(message, Result) and "rows" in message.arrays:
                lines = bytes(unpack_arrays(message.arrays, buffers)["rows"]).decode().splitlines()
                return " ".join(json.loads(line)["text"].strip() for line in lines if line).strip()
        return None
