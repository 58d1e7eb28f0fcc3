"""Runs Whisper by CTranslate2: the encoder, texts from its states, their places in the sound, the language."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.inference.ct2_library import library, opened
from engines.inference.reasons import one_line
from engines.inference.session import check_inputs
from engines.inference.tokenizer_file import tokenizer_of
from engines.part import Array
from engines.speech.model import Aligned, Generated, Search
from engines.speech.network import FEATURES, FRAMES, STATES, bands_of
from schemas.errors import DeviceLost, ModelError
from schemas.model import ModelSpec

_LOST = ("CUDA failed", "CUDA error", "CUBLAS_STATUS_EXECUTION", "CUBLAS_STATUS_INTERNAL")
_FILTER = 7  # the width of the median filter over attentions, openai/whisper's


class WhisperSession:
    """A network on one device; `gpu` is the number of a GPU, None the CPU, where it computes with one thread.

    Raises PluginMissing if CTranslate2 is missing, ModelError if the files are not those of a Whisper, or the device
    does not compute in the card's precision.
    """

    batch_bytes = 64 << 20  # of features: a batch of 64

    def __init__(self, model: ModelFiles, spec: ModelSpec, gpu: int | None) -> None:
        self.spec = spec
        self._on_cpu = gpu is None
        # on an H200 three texts of ten were others where a chunk was alone in its batch, and scores in each size
        self.any_batch = self._on_cpu and spec.precision.startswith("int8")
        self._library = library(spec, "stt")
        self.tokenizer: Any = tokenizer_of(model, spec, "stt")
        self._model: Any = opened(self._library, self._library.models.Whisper, model, spec, gpu)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the encoder's `states` for `features`."""
        check_inputs(self.spec, inputs)
        return {STATES: np.asarray(self.encode(inputs[FEATURES]), np.float32)}

    def encode(self, features: Array) -> Any:
        """States of `features [N, bands, 3000]` float32, on the model's device, for the methods below."""
        return self._call(self._model.encode, self._view(features))

    def _view(self, array: Array) -> Any:
        return self._library.StorageView.from_array(np.ascontiguousarray(array))

    def generate(self, states: Any, prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """The most likely text behind each prompt, by beam search. Raises ModelError, DeviceLost."""
        found = self._call(
            self._model.generate,
            states,
            [list(prompt) for prompt in prompts],
            beam_size=search.beam,
            patience=search.patience,
            length_penalty=search.length_penalty,
            repetition_penalty=search.repetition_penalty,
            no_repeat_ngram_size=search.no_repeat,
            max_length=search.most_tokens,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=list(search.suppressed),
        )
        made = []
        for each in found:
            tokens = each.sequences_ids[0]
            total = each.scores[0] * len(tokens) ** search.length_penalty
            made.append(Generated(tuple(tokens), total / (len(tokens) + 1), each.no_speech_prob))
        return made

    def align(
        self, states: Any, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Aligned]:
        """Where in the sound each token of texts is; `frames` of 10 ms of each row are not padding.

        On the CPU, one text in a run: the library pads texts to the longest one, sums of floats depend on that length,
        and what int8 makes of them is other numbers. Without padding it is no slower.
        """
        if self._on_cpu:
            rows = np.asarray(states)
            pieces = [(self._view(rows[each : each + 1]), each, each + 1) for each in range(len(texts))]
        else:
            pieces = [(states, 0, len(texts))]
        found = []
        for some, first, end in pieces:
            given = [list(text) for text in texts[first:end]], list(frames[first:end])
            found += self._call(self._model.align, some, list(start), *given, median_filter_width=_FILTER)
        return [Aligned(tuple(each.text_token_probs), tuple(map(tuple, each.alignments))) for each in found]

    def languages(self, states: Any) -> list[list[tuple[str, float]]]:
        """Code and probability of each language, of each row, the most probable first."""
        found = self._call(self._model.detect_language, states)
        return [[(token[2:-2], float(share)) for token, share in row] for row in found]

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except Exception as error:  # the library raises RuntimeError and ValueError
            words = one_line(error)
            if any(each in words for each in _LOST):
                raise DeviceLost(f"model {self.spec.name}: {words}") from error
            raise ModelError(f"model {self.spec.name} failed: {words}") from error

    def warm_up(self) -> None:
        """Encode a second of silence."""
        self.encode(np.zeros((1, bands_of(self.spec), FRAMES), np.float32))

    def close(self) -> None:
        """Free the model and its memory."""
        self._model = self.tokenizer = None
