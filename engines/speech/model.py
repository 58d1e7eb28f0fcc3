"""What a network of the form of Whisper can do, and the values that it takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engines.part import Array
from schemas.model import ModelSpec

MOST_TOKENS = 448  # of a prompt and its text


@dataclass(frozen=True, slots=True)
class Search:
    """How texts are searched. `no_repeat`: no run of so many tokens comes twice. `suppressed`: forbidden tokens."""

    beam: int = 5
    patience: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat: int = 0
    most_tokens: int = MOST_TOKENS
    suppressed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """The tokens of a text, their mean log probability, and the probability that there is no speech."""

    tokens: tuple[int, ...]
    log_prob: float
    no_speech: float


@dataclass(frozen=True, slots=True)
class Aligned:
    """The probability of each token of a text, and the path through it: `(token, state of 20 ms)`, both rising."""

    probabilities: tuple[float, ...]
    path: tuple[tuple[int, int], ...]


@runtime_checkable
class SpeechModel(Protocol):
    """A session that transcribes. States stay on its device. All methods raise ModelError and DeviceLost."""

    tokenizer: Any  # a tokenizers.Tokenizer
    any_batch: bool  # whether a row's answer is the same in a batch of any size

    @property
    def spec(self) -> ModelSpec:
        """The model card."""
        ...

    def encode(self, features: Array) -> Any:
        """States of `features [N, bands, 3000]` float32."""
        ...

    def generate(self, states: Any, prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """The most likely text behind the prompt of each row; all prompts are equally long."""
        ...

    def align(
        self, states: Any, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Aligned]:
        """Where in the sound each token of a row's text is; of a row, `frames` of 10 ms are not padding."""
        ...

    def languages(self, states: Any) -> list[list[tuple[str, float]]]:
        """Code and probability of each language, the most probable first, of each row."""
        ...
