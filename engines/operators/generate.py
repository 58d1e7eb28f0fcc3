"""chat and complete: a language model writes an answer to each text.

They give `text`, the answers; `finish`, why each ended: "stop", or "length" at `max_tokens`; and the numbers of tokens,
`tokens` of the answer and `prompt_tokens` of its prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import ConfigDict

from engines.continuous import NewText
from engines.generation.answer import Finish
from engines.generation.answer_request import AnswerRequest, Choices, grammar_of, line_choices, sampling_of
from engines.generation.session import AnswerSession
from engines.operators.base import BaseOperator, required_model
from engines.part import Part, Tick, Value
from engines.planned import Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.texts import REQUEST, TEXT, needed_text, text_of_row, text_rows, text_tensor
from schemas.errors import ItemTooLarge, MediaError, PipelineError, RigflowError
from schemas.jobs import Key
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage
from schemas.requests import TextRequest

MAX_TOKENS = 512
_BACKENDS = ("ctranslate2-text", "onnxruntime-genai")
FINISH, TOKENS, PROMPT_TOKENS = "finish", "tokens", "prompt_tokens"


class CompleteOptions(Choices):
    """How answers are chosen; a line of JSON may choose for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ChatOptions(CompleteOptions):
    """`system`: the first message of conversations that have none of that role."""

    system: str = ""


class Growing(Protocol):
    """The answer to a row while it grows: an `Answer`, or several that follow from each other."""

    @property
    def text(self) -> str:
        """What is written of it."""
        ...

    @property
    def finish(self) -> Finish:
        """Why it ended; "" until then."""
        ...

    @property
    def error(self) -> RigflowError | None:
        """Why it has no end."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that were written."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were read."""
        ...

    @property
    def first_s(self) -> float:
        """When its first token came; 0: not yet."""
        ...

    @property
    def cancel(self) -> Callable[[], None]:
        """End it early."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        ...

    def advance(self) -> None:
        """Begin what follows from an answer that has ended. Called by the thread that steps the session."""
        ...

    def news(self) -> str:
        """Return the text that is new since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A row of a part that is to be answered: the place of the part, the row's number, its line of JSON, its text."""

    session: AnswerSession
    key: Key
    number: int
    request: TextRequest | None
    text: str
    urgent: bool


class Writing:
    """A part while its answers are written."""

    def __init__(self, part: Part, answers: Sequence[Growing | RigflowError], keeps: Sequence[str]) -> None:
        self._part = part
        self._answers = answers
        self._keeps = keeps
        self._counts = [0] * len(answers)

    @property
    def done(self) -> bool:
        """Whether all answers are."""
        return all(isinstance(each, RigflowError) or each.done for each in self._answers)

    @property
    def answers(self) -> list[Growing]:
        """Those that a model writes."""
        return [each for each in self._answers if not isinstance(each, RigflowError)]

    def advance(self) -> None:
        """Begin what follows from answers that have ended."""
        for answer in self.answers:
            answer.advance()

    def cancel(self) -> None:
        """End the answers that are not done."""
        for answer in self.answers:
            if not answer.done:
                answer.cancel()

    def news(self) -> Iterator[NewText]:
        """Yield the text that is new in each answer since the last call."""
        names = [item.name for item in self._part.meta.items if not item.error]
        for number, answer in enumerate(self._answers):
            if not isinstance(answer, RigflowError) and (text := answer.news()):
                yield NewText(number, names[number] if names else "", self._counts[number], text)
                self._counts[number] += 1

    def outcome(self) -> Part | RigflowError:
        """Return the part with the answers. Items whose answer failed have their error, and no row."""
        found = [each if isinstance(each, RigflowError) else each.error for each in self._answers]
        errors = {number: error for number, error in enumerate(found) if error is not None}
        part = self._part
        if errors:
            if part.meta.media.timed:
                return next(iter(errors.values()))
            part = part.without_failed(errors, self._keeps)
        good = [number for number in range(len(found)) if number not in errors]
        answers = [answer for number in good if not isinstance(answer := self._answers[number], RigflowError)]
        made: dict[str, Value] = {
            TEXT: text_rows([answer.text for answer in answers]),
            FINISH: text_rows([answer.finish for answer in answers]),
            TOKENS: np.array([answer.tokens for answer in answers], np.int32),
            PROMPT_TOKENS: np.array([answer.prompt_tokens for answer in answers], np.int32),
        }
        tokens = part.meta.tokens + sum(answer.tokens + answer.prompt_tokens for answer in answers)
        return part.with_arrays({**({} if part is self._part else part.arrays), **made}, tokens=tokens)


class Complete(BaseOperator[CompleteOptions]):
    """Continues each text."""

    options_class: type[CompleteOptions] = CompleteOptions
    needs_model = True
    _templated = False

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        model = required_model(stage, model)
        if model.backend not in _BACKENDS:
            what = f"stage `{stage.name}`: model `{model.name}` is no language model"
            raise PipelineError(what, "add a folder of ONNX Runtime GenAI or CTranslate2; see docs/chat.md")
        self._model = model

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the answers. Raises PipelineError if there is no text."""
        text = needed_text(self._stage, inputs, self._source)
        counts = {name: Tensor("int32", text.shape[:1]) for name in (TOKENS, PROMPT_TOKENS)}
        return {TEXT: text_tensor(), FINISH: text_tensor(), **counts}

    @property
    def _source(self) -> str:
        return self._stage.reads.get(TEXT, TEXT)

    def rows(self, part: Part) -> int:
        """Return 0: a part waits for no other, because answers join those that are being written."""
        return 0

    def begin(self, part: Part, session: Session, urgent: bool) -> Writing:
        """Begin the answers of a part. One that cannot begin has an error of its own."""
        assert isinstance(session, AnswerSession), "the card names the backend"
        texts, requests = part.arrays.get(self._source), part.arrays.get(REQUEST)
        if not isinstance(texts, Ragged) or len(texts) != len(part.meta.pts):
            raise PipelineError(f"a part of {len(part.meta.pts)} windows does not have `{self._source}` for each")
        answers: list[Growing | RigflowError] = []
        for number in range(len(texts)):
            line = text_of_row(requests, number) if isinstance(requests, Ragged) and self._source == TEXT else ""
            try:
                request = TextRequest.model_validate_json(line) if line else None
                question = Question(session, part.meta.key, number, request, text_of_row(texts, number), urgent)
                answers.append(self._answer(question))
            except (RigflowError, ValueError) as error:
                answers.append(error if isinstance(error, RigflowError) else MediaError("its line is no request"))
        return Writing(part, answers, self._stage.keeps)

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return parts with their answers: for callers that wait for all of them."""
        assert isinstance(session, AnswerSession)
        writing = [self.begin(part, session, False) for part in parts]
        while not all(each.done for each in writing):
            session.step(tick)
            for each in writing:
                each.advance()
        return [each.outcome() for each in writing]

    def _answer(self, question: Question) -> Growing:
        """Begin the answer. Raises RigflowError."""
        return question.session.begin(self._asked(question))

    def _asked(self, question: Question) -> AnswerRequest:
        session, own = question.session, line_choices(question.request)
        choices = own.over(self._options)
        tokens = session.encode(self._prompt(session, question.request, question.text), self._templated)
        room = session.context - len(tokens)
        wanted = self._wanted(question) or max(1, min(MAX_TOKENS, room))
        if wanted > room:
            what = f"its text has {len(tokens)} tokens, and {wanted} more are wanted"
            holds = f"model {self._model.name} holds {session.context} together"
            raise ItemTooLarge(f"{what}: {holds}", "shorten the text, or lower max_tokens")
        if not len(tokens):
            raise MediaError("its text has no tokens", "write something into it")
        sampling = sampling_of(choices, own.seed is not None, question.key, question.number)
        return AnswerRequest(tokens, wanted, sampling, tuple(choices.stop or ()), grammar_of(choices), question.urgent)

    def _wanted(self, question: Question) -> int | None:
        """Return the most tokens of the answer; None: what there is room for. Raises MediaError."""
        return line_choices(question.request).over(self._options).max_tokens

    def _prompt(self, session: AnswerSession, request: TextRequest | None, text: str) -> str:
        """Return the text that the model continues. Raises MediaError for a conversation."""
        if request is not None and request.messages is not None:
            raise MediaError("it has messages, and this stage continues a text", "use the pipeline `chat`")
        return text


class Chat(Complete):
    """Answers each text, or conversation, by the model's own chat template."""

    options_class = ChatOptions
    _templated = True

    def _prompt(self, session: AnswerSession, request: TextRequest | None, text: str) -> str:
        assert isinstance(self._options, ChatOptions)
        messages = [{"role": "user", "content": text}]
        if request is not None and request.messages is not None:
            messages = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        if self._options.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._options.system})
        return session.chat_text(messages)
