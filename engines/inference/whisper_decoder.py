"""The decoder of a Whisper that optimum exported: its graphs, and the keys and values of its texts on a device."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.inference.place import Place
from engines.inference.resident import value
from engines.inference.token_graphs import CHOSEN, LOGITS, best_graph, rows_graph, shares_graph
from engines.part import Array
from engines.speech.network import FRAMES, file_named
from schemas.errors import ModelError
from schemas.model import ModelSpec

ENCODER, MERGED, FIRST, NEXT = "encoder_model", "decoder_model_merged", "decoder_model", "decoder_with_past_model"
IDS, SOUND_STATES, WHICH, POSITIONS = "input_ids", "encoder_hidden_states", "use_cache_branch", "cache_position"
PAST = re.compile(r"past_key_values\.(\d+\.(decoder|encoder)\.(?:key|value))")
ATTENTION = "rigflow_attention"
_PRESENT = "present."
_ELEMENTS = {"tensor(float)": (1, np.float32), "tensor(float16)": (10, np.float16)}  # TensorProto.DataType
_HINT = "export it by optimum, for the task automatic-speech-recognition-with-past"


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of texts, by the names that the graph takes: of tokens (`own`), and of sound (`heard`)."""

    own: Mapping[str, Any]
    heard: Mapping[str, Any]
    tokens: int


class WhisperDecoder:
    """Opened on a device. `heads`: how many heads of attention it has. Raises ModelError, DeviceLost."""

    def __init__(self, model: ModelFiles, spec: ModelSpec, place: Place, heads: int) -> None:
        self._spec = spec
        self._place = place
        names = {file.name for file in model.files}
        if merged := f"{MERGED}.onnx" in names:
            self._first = self._next = place.load(graph_called(model, spec, MERGED))
        else:
            self._first = place.load(graph_called(model, spec, FIRST))
            self._next = place.load(graph_called(model, spec, NEXT))
        self._inputs = {each.name: each for each in (*self._first.get_inputs(), *self._next.get_inputs())}
        self._past = [name for name in self._inputs if PAST.fullmatch(name)]
        self._check(merged)
        self._element, self.dtype = _ELEMENTS[self._inputs[self._past[0]].type]
        shape = self._inputs[self._past[0]].shape
        width = spec.outputs[0].shape[-1]
        assert isinstance(width, int), "arrays_of made the card"
        self._heads = shape[1] if isinstance(shape[1], int) else heads
        self._head_width = shape[3] if isinstance(shape[3], int) else width // heads
        [logits] = [each for each in self._first.get_outputs() if each.name == LOGITS]
        element, _ = _ELEMENTS[logits.type]
        self._best = place.load(best_graph(element))
        self._shares = place.load(shares_graph(element))
        self._own = [name for name in self._past if ".decoder." in name]
        self._heard = [name for name in self._past if ".encoder." in name]
        self._rows = place.load(rows_graph([str(number) for number in range(len(self._own))], self._element))
        self._attentions = sorted(
            (each.name for each in self._first.get_outputs() if each.name.startswith(f"{ATTENTION}.")),
            key=lambda name: int(name.rpartition(".")[2]),
        )

    def _check(self, merged: bool) -> None:
        known = {IDS, SOUND_STATES, POSITIONS, *(WHICH for _ in range(merged)), *self._past}
        outputs = {each.name for each in self._first.get_outputs()}
        named = f"model {self._spec.name}: its decoder"
        if others := [name for name in self._inputs if name not in known]:
            raise ModelError(f"{named} wants `{others[0]}`, which is not known", _HINT)
        if not self._past or len(self._past) % 4:
            raise ModelError(f"{named} keeps no keys and values from one token to the next", _HINT)
        for name in (LOGITS, *map(present, self._past)):
            if name not in outputs:
                raise ModelError(f"{named} does not give `{name}`", _HINT)
        for name in (SOUND_STATES, *self._past):
            if name in self._inputs and self._inputs[name].type not in _ELEMENTS:
                raise ModelError(f"{named} takes {self._inputs[name].type} as `{name}`", "export it in fp32 or fp16")

    def first(self, tokens: Array, states: Any) -> tuple[Any, Cache]:
        """Logits `[N, T, V]` of `tokens [N, T]`, the first of texts, and what the next tokens need."""
        wanted = [LOGITS, *map(present, self._past)]
        made = self._place.run(self._first, self._first_inputs(tokens, states), wanted)
        cache = {name: made[present(name)] for name in self._past}
        return made[LOGITS], self._cache(cache, {name: cache[name] for name in self._heard}, tokens.shape[1])

    def next(self, tokens: Array, cache: Cache, states: Any) -> tuple[Any, Cache]:
        """Logits `[N, 1, V]` of `tokens [N, 1]`, which follow those of a cache, and the cache with them."""
        inputs = {**self._given(self._next, tokens, states, cache.tokens), **cache.own, **cache.heard}
        if WHICH in self._inputs:
            inputs[WHICH] = value(np.array([True]))
        made = self._place.run(self._next, inputs, [LOGITS, *map(present, self._own)])
        own = {name: made[present(name)] for name in self._own}
        return made[LOGITS], self._cache(own, cache.heard, cache.tokens + tokens.shape[1])

    def logits(self, tokens: Array, states: Any) -> Any:
        """Logits `[N, T, V]` of `tokens [N, T]` alone."""
        return self._place.run(self._first, self._first_inputs(tokens, states), [LOGITS])[LOGITS]

    def attention(self, tokens: Array, states: Any) -> tuple[Any, Array | None]:
        """Logits of `tokens [N, T]`, and the shares `[N, heads, T, states]` of attention of the alignment heads.

        Some exports do not give the latter.
        """
        made = self._place.run(self._first, self._first_inputs(tokens, states), [LOGITS, *self._attentions])
        shares = [self._place.read(made[name]).astype(np.float32) for name in self._attentions]
        return made[LOGITS], np.concatenate(shares, 1) if shares else None

    def _first_inputs(self, tokens: Array, states: Any) -> dict[str, Any]:
        inputs = self._given(self._first, tokens, states, 0)
        if WHICH in self._inputs:  # the other branch has a past, which is given and not used
            inputs[WHICH] = value(np.array([False]))
            unused = value(np.zeros((len(tokens), self._heads, 1, self._head_width), self.dtype))
            inputs |= dict.fromkeys(self._past, unused)
        return inputs

    def _given(self, session: Any, tokens: Array, states: Any, before: int) -> dict[str, Any]:
        names = {each.name for each in session.get_inputs()}
        positions = np.arange(before, before + tokens.shape[1], dtype=np.int64)
        given = {IDS: value(tokens.astype(np.int64)), SOUND_STATES: states, POSITIONS: value(positions)}
        return {name: each for name, each in given.items() if name in names}

    def _cache(self, own: Mapping[str, Any], heard: Mapping[str, Any], tokens: int) -> Cache:
        return Cache({name: own[name] for name in self._own}, heard, tokens)

    def taken(self, cache: Cache, rows: Array) -> Cache:
        """The cache of texts that continue these rows of `own`; one without a change is the same one."""
        [first] = [next(iter(cache.own.values())).shape()[0]]
        if np.array_equal(rows, np.arange(first)):
            return cache
        return Cache(self._gathered(cache.own, rows), cache.heard, cache.tokens)

    def hearing(self, cache: Cache, rows: Array) -> Cache:
        """The cache with these rows of `heard`: those of the sound of each text."""
        return Cache(cache.own, self._gathered(cache.heard, rows), cache.tokens)

    def _gathered(self, values: Mapping[str, Any], rows: Array) -> dict[str, Any]:
        numbered = {str(number): each for number, each in enumerate(values.values())}
        names = [f"taken.{number}" for number in numbered]
        made = self._place.run(self._rows, {**numbered, "rows": value(rows.astype(np.int64))}, names)
        return dict(zip(values, made.values(), strict=True))

    def best(self, logits: Any, forbidden: Any, totals: Array, texts: int, count: int) -> tuple[Array, Array]:
        """See `engines.inference.token_graphs.best_graph`."""
        given = {"forbidden": forbidden, "totals": value(totals), "shape": value(np.array([texts, -1], np.int64))}
        inputs = {LOGITS: logits, **given, "count": value(np.array([count], np.int64))}
        best, chosen = self._place.fetch(self._best, inputs, ["best", CHOSEN])
        return best, chosen

    def shares(self, logits: Any, tokens: Array, most: int) -> Array:
        """See `engines.inference.token_graphs.shares_graph`."""
        inputs = {LOGITS: logits, "tokens": value(tokens.astype(np.int64)), "most": value(np.array([most], np.int64))}
        return self._place.fetch(self._shares, inputs, ["shares"])[0]

    def read(self, logits: Any) -> Array:
        """Logits on the host."""
        return self._place.read(logits)

    @cached_property
    def shares_sound(self) -> bool:
        """Whether texts of one sound can share its keys and values, by the rules of broadcasting.

        Older exports put rows and heads into one dimension: they fail then, or give other numbers without an error.
        """
        random = np.random.default_rng(0)

        def some(name: str, rows: int) -> Array:
            shape = [each if isinstance(each, int) else 6 for each in self._inputs[name].shape]
            sizes = (rows, self._heads, shape[2], self._head_width)
            return random.normal(0, 1, sizes).astype(self.dtype)

        own = {name: value(some(name, 2)) for name in self._own}
        heard = {name: some(name, 1) for name in self._heard}
        width = self._spec.outputs[0].shape[-1]
        states = value(np.zeros((2, FRAMES // 2, int(width)), self.states_dtype))
        length = next(iter(own.values())).shape()[2]
        made = []
        for rows in (1, 2):
            cache = Cache(own, {name: value(each.repeat(rows, 0)) for name, each in heard.items()}, length)
            try:
                made.append(self.read(self.next(np.array([[1], [2]]), cache, states)[0]))
            except ModelError:
                return False
        return np.array_equal(made[0], made[1])

    @property
    def heard_bytes(self) -> int:
        """Bytes of the keys and values of the sound of one text."""
        width = self._heads * self._head_width * np.dtype(self.dtype).itemsize
        return len(self._heard) * FRAMES // 2 * width

    @property
    def states_dtype(self) -> Any:
        """What it takes as states of sound."""
        return _ELEMENTS[self._inputs[SOUND_STATES].type][1]

    def close(self) -> None:
        """Free its graphs."""
        for session in (self._first, self._next, self._best, self._shares, self._rows):
            self._place.close(session)
        self._first = self._next = self._best = self._shares = self._rows = None


def present(past: str) -> str:
    """The output that is this input of the next run."""
    return _PRESENT + past.partition(".")[2]


def graph_called(model: ModelFiles, spec: ModelSpec, name: str) -> ModelFiles:
    """One of a model's graphs, with the files of its weights. Raises ModelError."""
    path = model.folder / file_named(spec.files, f"{name}.onnx", spec.name).sha256
    try:
        return ModelFiles(path.read_bytes(), model.files, model.folder)
    except OSError as error:
        raise ModelError(f"model {spec.name}: cannot read {path}: {error.strerror}", "add it again") from error
