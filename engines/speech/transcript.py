"""Chunks of sound, what was said in them, and how chunks are put into batches."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engines.part import Array
from engines.speech.mel import RATE
from engines.speech.words import Word


@dataclass(slots=True)
class Chunk:
    """Sound of at most as many seconds as a model takes, and the group of chunks that it belongs to.

    `offset_s`: how much sound of its group comes before it. `features`: what a model takes of it, if that is made.
    """

    sound: Array
    group: int
    offset_s: float
    features: Array | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.sound) / RATE


@dataclass(slots=True)
class Transcript:
    """What was said in a chunk: text, words with seconds from the begin of its group, and how sure that is.

    `tags`: what else a model says of the chunk, by the names of `Recogniser.tags`. `note`: why it has no text.
    """

    text: str
    words: list[Word]
    language: str
    share: float  # the probability of the language
    log_prob: float
    no_speech: float
    compression: float
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A language, and its probability."""

    language: str
    share: float


def batches_of(chunks: Sequence[Chunk], most: int, together: bool) -> Iterator[list[Chunk]]:
    """Yield the chunks in batches of at most `most`, in order; of different groups only if they may be `together`."""
    batch: list[Chunk] = []
    for chunk in chunks:
        if batch and (len(batch) == most or (not together and chunk.group != batch[-1].group)):
            yield batch
            batch = []
        batch.append(chunk)
    if batch:
        yield batch


def compression(text: str) -> float:
    """How much shorter a text is compressed: one that repeats itself has 3 to 20, figures of speech up to 2.5."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
