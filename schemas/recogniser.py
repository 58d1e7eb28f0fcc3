"""What a model that writes what is said takes and gives, where it hears features of sound and answers with tokens."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat, model_validator

from schemas.declared import Spec

Family: TypeAlias = Literal["paraformer", "sensevoice"]
Token: TypeAlias = Annotated[str, Field(max_length=256)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 31)]
LanguageCode: TypeAlias = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class RecogniserSpec(Spec):
    """How sound becomes `features [1, T, 80 * stack]` float32 and `frames [1]` int32, and what `tokens [1, K]` int32
    and their `log_probs [1, K]` float32 mean.

    Sound at 16 kHz times `gain` becomes 80 bands each 10 ms; `stack` frames are one row, and each row begins `hop`
    frames after the one before. `tokens`: the text of each token.

    A "paraformer" gives a token a row of K, `count [1]` int32 of them, of which the last `tail` are no text; with
    `us_alphas [1, U]` and `us_peaks [1, U]` float32 their times. `languages` has one, its own. A "sensevoice" takes a
    number of `languages`, or `any_language`, as `language [1]` int32, and one of `itn`, with and without numbers and
    punctuation, as `textnorm [1]` int32; its first four of K are tags.
    """

    family: Family
    gain: FiniteFloat = 32768.0
    stack: int = Field(default=7, ge=1, le=64)
    hop: int = Field(default=6, ge=1, le=64)
    tail: int = Field(default=0, ge=0, le=8)
    languages: Annotated[dict[LanguageCode, TokenId], Field(min_length=1, max_length=200)]
    any_language: TokenId = 0
    itn: tuple[TokenId, TokenId] = (14, 15)
    tokens: Annotated[tuple[Token, ...], Field(min_length=4, max_length=200_000)]

    @model_validator(mode="after")
    def _one_language(self) -> "RecogniserSpec":
        if self.family == "paraformer" and len(self.languages) != 1:
            raise ValueError("a paraformer has one language")
        return self
