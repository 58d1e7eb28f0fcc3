"""What sessions of language models share, whatever library writes their answers."""

from collections.abc import Sequence
from typing import Any

from engines.content import ModelFiles
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest
from engines.generation.answering import Answering, Limits
from engines.generation.chat_template import chat_text, template_of, texts_of
from engines.generation.row_answering import RowAnswering
from engines.part import Array, Tick
from schemas.errors import ModelError
from schemas.model import ModelSpec


class TextSession:
    """A language model; one of a library adds `encode`, `begin`, `warm_up`, `close`, and `_answering`."""

    batch_bytes = 1

    _answering: Answering | RowAnswering

    def __init__(self, model: ModelFiles, card: ModelSpec, limits: Limits) -> None:
        self.spec = card
        self.limits = limits
        self._template = template_of(texts_of(model), card.name)

    @property
    def context(self) -> int:
        """Tokens that a text and its answer may have together."""
        return self.limits.context

    @property
    def places(self) -> int:
        """How many answers run at a time."""
        return self.limits.slots

    @property
    def room(self) -> int:
        """How many more answers can be begun without waiting for others to end."""
        return self._answering.room

    @property
    def busy(self) -> bool:
        """Whether there are answers that are not done."""
        return self._answering.busy

    def chat_text(self, messages: Sequence[dict[str, str]]) -> str:
        """Return a conversation as text by the model's own template. Raises PipelineError if it has none."""
        return chat_text(self._template, messages, self.spec.name)

    def step(self, tick: Tick) -> None:
        """Add a token to every running answer, or to those alone that a person waits for."""
        self._answering.step(tick)

    def hurry(self) -> None:
        """See `engines.continuous.Stepping`."""
        self._answering.hurry()

    def run(self, inputs: Any) -> dict[str, Array]:
        """Raise ModelError: its answers are made by the operators chat and complete."""
        raise ModelError(f"model {self.spec.name} writes text", "run it in a stage `chat` or `complete`")

    def _added(self, asked: AnswerRequest, answer: Answer) -> Answer:
        """Put an answer among those that are written."""
        self._answering.add(asked, answer)
        return answer
