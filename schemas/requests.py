"""Requests for text: what a line of a `.jsonl` file says, and a message that is JSON."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it has a NUL character, which is no text")
    return text


Words: TypeAlias = Annotated[str, AfterValidator(_without_nul)]
"""Text without NUL characters: libraries in C would read it to the first one only."""


def _named(given: object) -> object:
    if given == "":
        raise ValueError("it is empty")
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise ValueError("should be a text or a whole number")
    return given


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "user", "assistant", "tool"]
    content: Words


class TextRequest(BaseModel):
    """A request: a text, by the name `prompt` or `text`, or the `messages` of a conversation.

    `id` is what its answer is called. Further fields are kept for the operators that read them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    id: Annotated[str | int | None, BeforeValidator(_named)] = None
    prompt: Words | None = None
    text: Words | None = None
    messages: Annotated[tuple[Turn, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if sum(each is not None for each in (self.prompt, self.text, self.messages)) != 1:
            raise ValueError("give one of prompt, text and messages")
        if not self.words.strip():
            raise ValueError("its text is empty")
        return self

    @property
    def words(self) -> str:
        """The text; of a conversation the content of its last message."""
        if self.messages is not None:
            return self.messages[-1].content
        return self.text or self.prompt or ""
