"""What a model that speaks takes: the symbols of its alphabet, its voices, and the rate of its sound."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat, model_validator

from schemas.declared import Spec

Alphabet: TypeAlias = Literal["ipa", "misaki", "letters", "pinyin", "pieces"]
Symbol: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 31)]
Symbols: TypeAlias = Annotated[tuple[Symbol, ...], Field(max_length=16)]
VoiceName: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
Language: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,32}$")]

MOST_STEPS = 1000
MOST_SYMBOLS = 65_536


class Consent(Spec):
    """The file that allows a voice to be cloned: its name, and the SHA-256 of its bytes."""

    file: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SpeechSpec(Spec):
    """How text becomes the inputs of a model, and what it gives: `sound [1, S]` float32 at `rate` Hz.

    `symbols [1, L]` int64 is `begin`, then for each character of the alphabet its entry in `symbols` and `after`, then
    `end`; `most` is the greatest L. `alphabet`: "ipa", phonemes of espeak-ng; "misaki": these in the spelling of
    Kokoro's English; "letters": of the text itself, small; "pinyin": initials and finals of Chinese, and "ipa" of the
    rest; "pieces": those of a vocabulary of SentencePiece, whose `scores` say how a text is split (`padded`: a short
    sentence begins with spaces). `language` is espeak-ng's name of the voice that reads.

    `voices`: the columns of the input `voice [1, V]`, which mixes them if the model `blends`, and `languages` those
    that they speak. `noise`: what the input `noise [1, 2]` is by default, of the sound and of the durations. `peak`:
    each sentence is made as loud as 16 bits hold. `steps` and `guidance`: what the inputs `steps [1]` int64 and
    `guidance [1]` are by default. `consent` is that of a cloned voice, which results name.
    """

    rate: int = Field(ge=1000, le=768_000)
    alphabet: Alphabet = "ipa"
    language: Language = ""
    symbols: Annotated[
        dict[Annotated[str, Field(max_length=64)], Symbols], Field(min_length=1, max_length=MOST_SYMBOLS)
    ]
    scores: Annotated[dict[Annotated[str, Field(max_length=64)], FiniteFloat], Field(max_length=MOST_SYMBOLS)] = Field(
        default_factory=dict
    )
    padded: bool = False
    begin: Symbols = ()
    after: Symbols = ()
    end: Symbols = ()
    most: int = Field(default=1024, ge=8, le=65_536)
    voices: Annotated[tuple[VoiceName, ...], Field(max_length=10_000)] = ()
    languages: Annotated[tuple[Language, ...], Field(max_length=10_000)] = ()
    blends: bool = False
    noise: tuple[FiniteFloat, FiniteFloat] = (0.0, 0.0)
    peak: bool = False
    steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    guidance: FiniteFloat = 0.0
    consent: Consent | None = None

    @model_validator(mode="after")
    def _languages_of_voices(self) -> "SpeechSpec":
        if self.languages and len(self.languages) != len(self.voices):
            raise ValueError(f"{len(self.languages)} languages for {len(self.voices)} voices")
        return self

    def language_of(self, voice: int) -> str:
        """Return the language of a voice by its number."""
        return self.languages[voice] if self.languages else self.language
