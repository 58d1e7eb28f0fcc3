"""What the stage transcribe asks of each kind of model that it runs, and its options."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pydantic import Field, field_validator

from engines.options import Options
from engines.part import Array, Part, Tick
from engines.ports import Session
from engines.speech.tokens import LANGUAGES, TASKS
from engines.speech.transcript import Chunk, Transcript
from schemas.errors import PipelineError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage


class TranscribeOptions(Options):
    """`language` is a code such as "de", or "" to find it: by the first speech in the first `first_s` seconds of the
    media, or else by the first chunk of each part; with `each_chunk` each chunk has its own. `task` "translate" gives
    English. `prompt` is text that comes before each chunk: it shows how names and punctuation are written; `hot_words`
    are likely in it. `words`: the times of words.

    `beam`: how many texts are searched at a time. A chunk is silent if the probability of that is above `no_speech`
    and the mean log probability of its text below `log_prob`. A text that compresses better than `compression` repeats
    itself, and is searched again without repetitions. `itn`: numbers as digits, and punctuation, of a SenseVoice.
    """

    language: str = ""
    first_s: float = Field(default=60.0, ge=0, le=120)
    each_chunk: bool = False
    task: str = TASKS[0]
    prompt: str = Field(default="", max_length=4000)
    hot_words: str = Field(default="", max_length=4000)
    words: bool = True
    beam: int = Field(default=5, ge=1, le=64)
    patience: float = Field(default=1.0, gt=0, le=10)
    length_penalty: float = Field(default=1.0, ge=0, le=10)
    no_speech: float = Field(default=0.6, ge=0, le=1)
    log_prob: float = Field(default=-1.0, ge=-1000, le=0)
    compression: float = Field(default=3.0, ge=1, le=1000)
    itn: bool = True

    @field_validator("language")
    @classmethod
    def _known(cls, code: str) -> str:
        if code and code not in LANGUAGES:
            raise ValueError(f"there is no language {code}: give a code such as en, de, zh, or leave it out")
        return code

    @field_validator("task")
    @classmethod
    def _task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"there are the tasks {' and '.join(TASKS)}")
        return task


class Recogniser(Protocol):
    """Makes texts of chunks by one kind of model.

    `longest_s`: the longest chunk that it takes; `family`: its name in errors. `most_batch`: the most chunks of a
    batch. `together`: on some device a chunk's answer does not depend on its batch, so that chunks of several parts may
    share one there.
    `languages`: those that it tells. `tags`: what else it says of a chunk, each with the values that there are.
    `head_s`: the seconds of the beginning of a media that parts are to have, too; see `engines.operators.base`.
    """

    family: str
    longest_s: float
    most_batch: int
    together: bool
    languages: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]

    @property
    def head_s(self) -> float:
        """See the class."""
        ...

    def __init__(self, stage: OperatorStage, model: ModelSpec, options: TranscribeOptions) -> None:
        """Raises PipelineError for options that the model does not have."""
        ...

    @staticmethod
    def runs(model: ModelSpec) -> bool:
        """Whether a model is of this kind."""
        ...

    def features(self, sound: Array) -> Array | None:
        """What the model takes of a chunk of sound, which may be made in advance; None where that has no use.

        All have one shape. Called by any thread.
        """
        ...

    def transcribe(
        self,
        parts: Sequence[Part],
        batches: Sequence[Sequence[Chunk]],
        session: Session,
        tick: Tick,
        count: Callable[[int], None],
    ) -> list[Transcript]:
        """The transcript of each chunk, in order; the group of a chunk is the number of its part.

        `tick` is called after each step, `count` after each batch. Raises ModelError, DeviceLost.
        """
        ...


def refused(stage: OperatorStage, model: ModelSpec, why: str, hint: str) -> PipelineError:
    """The error of a stage whose model cannot do what the options say."""
    return PipelineError(f"stage `{stage.name}`: model `{model.name}` {why}", hint)
