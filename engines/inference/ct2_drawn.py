"""An answer of CTranslate2 whose tokens are drawn. The library takes no seed for one answer, so they are drawn here.

The library continues the text by its most probable tokens and reports the scores of each. As long as the token that is
drawn by them is the same one, it goes on; after another one it begins again, and reads the text with that token.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.generation.answering import Asked
from engines.generation.drawing import drawn
from engines.generation.token_writer import TokenWriter
from engines.inference.ct2_groups import failure

_IN_A_STEP = 8  # most tokens


class DrawnGroup:
    """One answer. `words`: the tokens of its question as texts; `ends`: the tokens that end an answer."""

    def __init__(
        self, generator: Any, asked: Asked, words: Sequence[str], vocabulary: Sequence[str], ends: list[int]
    ) -> None:
        self._generator = generator
        self._asked = asked
        self._words = list(words)
        self._vocabulary = vocabulary
        self._ends = ends
        self._writer = TokenWriter(frozenset(ends))
        self._drawn = 0

    def step(self) -> None:
        """Write some tokens, at least one. Raises ModelError, DeviceLost."""
        try:
            self._generator.generate_batch(
                [self._words],
                max_length=min(_IN_A_STEP, self._asked.request.max_tokens - self._drawn),
                min_length=0,
                beam_size=1,
                sampling_topk=1,
                include_prompt_in_result=False,
                end_token=self._ends,
                return_end_token=True,
                return_logits_vocab=True,
                max_batch_size=0,
                callback=self._token,
            )
        except Exception as error:  # the library raises RuntimeError and ValueError
            raise failure(error) from error

    def _token(self, result: Any) -> bool:
        """Draw a token; whether the library is to end here."""
        import ctranslate2

        sampling = self._asked.request.sampling
        assert sampling is not None, "others are written by CallGroup"
        on_host = result.logits.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
        scores = np.asarray(on_host).reshape(-1)[: len(self._vocabulary)]
        token = drawn(scores, sampling, self._drawn)
        self._drawn += 1
        self._words.append(self._vocabulary[token])
        self._writer.add(self._asked, token)
        return token != result.token_id or self._asked.answer.done

    def drop(self, asked: Asked) -> None:
        """Do nothing: `close` follows."""

    def close(self) -> None:
        """Nothing: no call is running."""
