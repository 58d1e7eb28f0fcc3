"""Runs Whisper by graphs of ONNX Runtime, as optimum exports it: on the CPU, and by CUDA on a GPU.

On the CPU each chunk of sound is computed by itself, so its answer does not depend on the batch that it is in. On a GPU
chunks of a batch are computed together.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.inference.place import Place
from engines.inference.resident import value
from engines.inference.session import check_inputs
from engines.inference.tokenizer_file import tokenizer_of
from engines.inference.whisper_decoder import ENCODER, WhisperDecoder, graph_called
from engines.part import Array
from engines.speech.alignment import path_of
from engines.speech.model import MOST_TOKENS, Aligned, Generated, Search
from engines.speech.network import FEATURES, FRAMES, STATES, bands_of
from engines.speech.search import Beams, penalised
from engines.speech.tokens import LANGUAGES
from schemas.errors import ModelError
from schemas.model import ModelSpec

SETTINGS_FILE = "generation_config.json"
_INPUT, _OUTPUT = "input_features", "last_hidden_state"
_MOST_ROWS = 16  # chunks that are computed together on a GPU, where they take
_HEARD_BYTES = 4 << 30  # for the keys and values of their sound, with the usual beam
_MOST_MASKS = 8
_HEAD_WIDTH = 64  # of all Whispers


class WhisperOnnxSession:
    """A network on one device. Raises ModelError: the files are not those of a Whisper, or tokenizers is missing."""

    batch_bytes = 64 << 20  # of features: a batch of 64

    def __init__(self, model: ModelFiles, spec: ModelSpec, place: Place) -> None:
        self.spec = spec
        self._place = place
        self.tokenizer = tokenizer_of(model, spec, "stt")
        config = _json(model.graph, spec)
        width, tokens = (tensor.shape[-1] for tensor in spec.outputs)
        assert isinstance(width, int), "arrays_of made the card"
        assert isinstance(tokens, int), "arrays_of made the card"
        self._vocabulary = tokens
        self._decoder = WhisperDecoder(model, spec, place, config.get("decoder_attention_heads", width // _HEAD_WIDTH))
        self._encoder: Any = place.load(graph_called(model, spec, ENCODER))
        [taken] = self._encoder.get_inputs()
        self._dtype = np.float16 if taken.type == "tensor(float16)" else np.float32
        self._width = width
        heard = self._decoder.heard_bytes * Search().beam
        self._together = max(1, min(_MOST_ROWS, _HEARD_BYTES // heard)) if place.on_gpu else 1
        self.any_batch = not place.on_gpu
        self._masks: dict[tuple[int, ...], Any] = {}
        self._begin, self._end, self._no_times = map(
            self._id, ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
        )
        silent = (self.tokenizer.token_to_id(f"<|{name}|>") for name in ("nospeech", "nocaptions"))
        self._silent = next((each for each in silent if each is not None), self._no_times - 1)
        given = next((file for file in spec.files if file.name == SETTINGS_FILE), None)
        settings = {} if given is None else _json((model.folder / given.sha256).read_bytes(), spec)
        blank = [*self.tokenizer.encode(" ", add_special_tokens=False).ids[:1], self._end]
        self._not_first = settings.get("begin_suppress_tokens") or config.get("begin_suppress_tokens") or blank

    def _id(self, name: str) -> int:
        found: int | None = self.tokenizer.token_to_id(name)
        if found is None or found >= self._vocabulary:
            raise ModelError(f"model {self.spec.name}: its tokenizer lacks the token {name}", "add it again")
        return found

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the encoder's `states` for `features`."""
        check_inputs(self.spec, inputs)
        states = [self._place.read(each) for each in self.encode(inputs[FEATURES])]
        return {STATES: np.concatenate([np.zeros((0, FRAMES // 2, self._width)), *states]).astype(np.float32)}

    def encode(self, features: Array) -> list[Any]:
        """States of `features [N, bands, 3000]` float32, on the model's device: of rows that are computed together."""
        made = []
        for first in range(0, len(features), self._together):
            rows = value(features[first : first + self._together].astype(self._dtype))
            states = self._place.run(self._encoder, {_INPUT: rows}, [_OUTPUT])[_OUTPUT]
            if self._dtype != self._decoder.states_dtype:
                states = value(self._place.read(states).astype(self._decoder.states_dtype))
            made.append(states)
        return made

    def generate(self, states: list[Any], prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """The most likely text behind each prompt, by beam search. Raises ModelError, DeviceLost."""
        found = []
        for rows, group in _groups(states):
            found += self._generated(group, np.array([list(prompt) for prompt in prompts[rows]], np.int64), search)
        return found

    def _generated(self, states: Any, prompts: Array, search: Search) -> list[Generated]:
        decoder, texts = self._decoder, len(prompts)
        logits, cache = decoder.first(prompts, states)
        begin = int(np.argmax(prompts[0] == self._begin))
        silent = np.full((*prompts.shape, 1), self._silent)
        no_speech = np.exp(decoder.shares(logits, silent, self._vocabulary)[:, begin, 0])
        # at most half of the tokens are text, as CTranslate2 has it
        allowed = min(search.most_tokens, MOST_TOKENS)
        beams = Beams(texts, search, self._end, max(1, min(allowed // 2, allowed - prompts.shape[1] + 1)))
        rows = self._advance(beams, logits, search, texts, [*search.suppressed, *self._not_first])
        if not (texts == 1 and not self._place.on_gpu and decoder.shares_sound):
            cache = decoder.hearing(cache, np.arange(texts).repeat(search.beam))
        while not beams.done:
            logits, cache = decoder.next(beams.tokens[:, -1:], decoder.taken(cache, rows), states)
            rows = self._advance(beams, logits, search, texts, search.suppressed)
        return [
            Generated(ended.tokens, ended.total / (len(ended.tokens) + 1), share)
            for ended, share in zip(beams.best(), no_speech.tolist(), strict=True)
        ]

    def _advance(self, beams: Beams, logits: Any, search: Search, texts: int, suppressed: Sequence[int]) -> Array:
        """Continue texts by one token; return the rows that they continue."""
        if search.repetition_penalty != 1 or search.no_repeat:
            found = self._decoder.read(logits)
            made = penalised(found[:, -1].astype(np.float32), beams.tokens, search)
            logits = value(made[:, None].astype(found.dtype))
        best, chosen = self._decoder.best(logits, self._forbidden(suppressed), beams.totals, texts, beams.candidates)
        return beams.advance(best, chosen, self._vocabulary)

    def _forbidden(self, tokens: Sequence[int]) -> Any:
        key = tuple(tokens)
        if key not in self._masks:
            mask = np.zeros(self._vocabulary, np.float32)
            mask[[token for token in key if token < self._vocabulary]] = -np.inf
            self._masks = {**dict(list(self._masks.items())[-_MOST_MASKS:]), key: value(mask)}
        return self._masks[key]

    def align(
        self, states: list[Any], start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Aligned]:
        """Where in the sound each token of texts is; `frames` of 10 ms of each row are not padding."""
        made = []
        for rows, group in _groups(states):
            made += self._aligned(group, [*start, self._no_times], texts[rows], frames[rows])
        return made

    def _aligned(
        self, states: Any, before: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Aligned]:
        if not any(texts):
            return [Aligned((), ()) for _ in texts]
        length = len(before) + max(map(len, texts)) + 1
        tokens = np.full((len(texts), length), self._end)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(before) + len(text)] = [*before, *text]
        logits, attention = self._decoder.attention(tokens, states)
        following = np.minimum(np.roll(tokens, -1, axis=1), self._end - 1)[:, :, None]
        shares = np.exp(self._decoder.shares(logits, following, self._end))[:, len(before) - 1 :, 0]
        made = []
        for number, text in enumerate(texts):
            path: tuple[tuple[int, int], ...] = ()
            if attention is not None and text:
                rows = attention[number, :, : len(before) + len(text) + 1]
                path = path_of(rows, len(before) - 1, frames[number] // 2)
            made.append(Aligned(tuple(shares[number, : len(text)].tolist()), path))
        return made

    def languages(self, states: list[Any]) -> list[list[tuple[str, float]]]:
        """Code and probability of each language, of each row, the most probable first."""
        known = {code: self.tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES}
        ids = {code: token for code, token in known.items() if token is not None and token < self._vocabulary}
        made = []
        for _, group in _groups(states):
            count = group.shape()[0]
            logits = self._decoder.logits(np.full((count, 1), self._begin), group)
            wanted = np.broadcast_to(np.array(list(ids.values()), np.int64), (count, 1, len(ids)))
            shares = np.exp(self._decoder.shares(logits, wanted, self._vocabulary)[:, 0])
            for row in shares / shares.sum(axis=1, keepdims=True):
                made.append(sorted(zip(ids, row.tolist(), strict=True), key=lambda pair: -pair[1]))
        return made

    def warm_up(self) -> None:
        """Write a few tokens of a second of silence."""
        states = self.encode(np.zeros((1, bands_of(self.spec), FRAMES), np.float32))
        self.generate(states, [[self._begin, self._no_times]], Search(most_tokens=8))

    def close(self) -> None:
        """Free the model and its memory."""
        if self._encoder is not None:
            self._place.close(self._encoder)
            self._decoder.close()
        self._encoder = self.tokenizer = None
        self._masks.clear()


def _groups(states: Sequence[Any]) -> Iterator[tuple[slice, Any]]:
    """The rows of each value of states, and the value."""
    first = 0
    for group in states:
        count = group.shape()[0]
        yield slice(first, first + count), group
        first += count


def _json(body: bytes, spec: ModelSpec) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model {spec.name}: a file of its settings is no JSON", "add it again") from error
    return found if isinstance(found, dict) else {}
