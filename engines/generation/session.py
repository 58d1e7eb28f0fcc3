"""The sessions of language models, as the operators chat and complete see them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest, Tokens
from engines.part import Tick


@runtime_checkable
class AnswerSession(Protocol):
    """A language model with its tokenizer. `begin` answers, then `step` until they are done."""

    @property
    def context(self) -> int:
        """Tokens that a text and its answer may have together."""
        ...

    def encode(self, text: str, templated: bool) -> Tokens:
        """Return the tokens of a text; `templated`: it is of `chat_text`, which has all special tokens."""
        ...

    def chat_text(self, messages: Sequence[dict[str, str]]) -> str:
        """Return a conversation as text by the model's own template. Raises PipelineError if it has none."""
        ...

    def begin(self, asked: AnswerRequest) -> Answer:
        """Begin an answer. Raises RigflowError: the session cannot write such an answer."""
        ...

    def step(self, tick: Tick) -> None:
        """Add tokens to answers that are not done."""
        ...
