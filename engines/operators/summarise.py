"""summarise: a language model writes a summary of each text; of one that it cannot hold, a summary of summaries.

A text that has no room in the model's context is cut between sentences into stretches of about equal length. Each has a
summary, and these together are the text of the next one, until it has room. Where a text is cut depends on it and on
the model alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from pydantic import Field

from engines.generation.answer import Answer, Finish
from engines.generation.answer_request import line_choices
from engines.generation.session import AnswerSession
from engines.operators.generate import MAX_TOKENS, Chat, ChatOptions, Growing, Question
from engines.sentences import sentences
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.requests import TextRequest

_SHARE = 4  # of the context, what a summary has at most without `max_tokens`
_SPARE = 16  # tokens by which sentences together may be more than each alone


class SummariseOptions(ChatOptions):
    """`prompt`: what the model is asked for; the text follows it."""

    prompt: str = Field(default="Summarise the following text in a few sentences.", min_length=1, max_length=4000)


class Summary:
    """The summary of a text while it grows. `cut` makes stretches of a text, and `ask` begins the summary of one.

    `tokens` and `prompt_tokens` are those of all summaries that it is made of.
    """

    def __init__(self, text: str, cut: Callable[[str], list[str]], ask: Callable[[str, int], Answer]) -> None:
        self._cut = cut
        self._ask = ask
        self._all: list[Answer] = []
        self._last: list[Answer] = []
        self._cancelled = False
        self.error: RigflowError | None = None
        self._begin(text)

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        return self._cancelled or self.error is not None or (len(self._last) == 1 and self._last[0].done)

    @property
    def text(self) -> str:
        """Its text; "" before the last summary begins."""
        return self._last[0].text if len(self._last) == 1 else ""

    @property
    def finish(self) -> Finish:
        """Why it ended."""
        if self._cancelled:
            return "cancelled"
        return self._last[0].finish if len(self._last) == 1 else ""

    @property
    def tokens(self) -> int:
        """Tokens that were written."""
        return sum(answer.tokens for answer in self._all)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were read."""
        return sum(answer.prompt_tokens for answer in self._all)

    @property
    def first_s(self) -> float:
        """When its first token came; 0: not yet."""
        return min((answer.first_s for answer in self._all if answer.first_s), default=0.0)

    def advance(self) -> None:
        """Begin the summary of the summaries, once these have ended."""
        if self.done or not all(answer.done for answer in self._last):
            return
        self.error = next((answer.error for answer in self._last if answer.error is not None), None)
        if self.error is None:
            try:
                self._begin("\n\n".join(answer.text.strip() for answer in self._last))
            except RigflowError as error:
                self.error = error

    def news(self) -> str:
        """Return what is new in the last summary."""
        return self._last[0].news() if len(self._last) == 1 else ""

    def cancel(self) -> None:
        """End it early; no summary of the summaries follows."""
        self._cancelled = True
        for answer in self._last:
            if not answer.done:
                answer.cancel()

    def _begin(self, text: str) -> None:
        self._last = []
        for stretch in self._cut(text):
            self._last.append(self._ask(stretch, len(self._all)))
            self._all.append(self._last[-1])


class Summarise(Chat):
    """Summarises each text."""

    options_class = SummariseOptions

    def _answer(self, question: Question) -> Growing:
        if not question.text.strip():  # a model would invent something
            return Answer(piece=str, finish="stop")
        if question.request is not None and question.request.messages is not None:
            raise MediaError("it has messages, and this stage summarises a text", "use the pipeline `chat`")

        def ask(stretch: str, number: int) -> Answer:
            asked = replace(question, text=stretch, number=question.number + (number << 20))
            return question.session.begin(self._asked(asked))

        return Summary(question.text, partial(self._stretches, question), ask)

    def _prompt(self, session: AnswerSession, request: TextRequest | None, text: str) -> str:
        assert isinstance(self._options, SummariseOptions)
        return super()._prompt(session, None, f"{self._options.prompt}\n\n{text}")

    def _wanted(self, question: Question) -> int | None:
        chosen = line_choices(question.request).over(self._options).max_tokens
        return chosen or max(1, min(MAX_TOKENS, question.session.context // _SHARE))

    def _stretches(self, question: Question, text: str) -> list[str]:
        """The text, or stretches of it that have room beside their summaries. Raises ItemTooLarge."""
        session, wanted = question.session, self._wanted(question) or 0

        def tokens(text: str) -> int:
            return len(session.encode(text, templated=True))

        room = session.context - wanted - tokens(self._prompt(session, None, "")) - _SPARE
        total = tokens(text)
        if total <= room:
            return [text]
        if room < 2 * wanted:  # summaries of summaries would not become shorter
            what = f"its text has {total} tokens, and model {self._model.name} holds {session.context}"
            raise ItemTooLarge(f"{what}: too few to make summaries of {wanted} of it", "lower max_tokens")
        pieces = [piece for sentence in sentences(text) for piece in _pieces(f" {sentence}", room, tokens)]
        return _filled([(piece, tokens(piece)) for piece in pieces], room)


def _pieces(text: str, room: int, tokens: Callable[[str], int]) -> Iterator[str]:
    """A sentence, or pieces of it that have room."""
    if tokens(text) <= room or len(text) < 2:
        yield text
        return
    middle = max(text.rfind(" ", 1, len(text) // 2 + 1), 0) or len(text) // 2
    yield from _pieces(text[:middle], room, tokens)
    yield from _pieces(text[middle:], room, tokens)


def _filled(pieces: Sequence[tuple[str, int]], room: int) -> list[str]:
    """Stretches of at most `room` tokens, as few and as equal as pieces in their order allow."""
    total = sum(count for _, count in pieces)
    target = total / -(-total // room)
    stretches, held = [""], 0
    for piece, count in pieces:
        if held and (held + count > room or held >= target):
            stretches.append("")
            held = 0
        stretches[-1] += piece
        held += count
    return [stretch.strip() for stretch in stretches]
