"""Models with a state: an output of one run is an input of the next, over the rows of a segment in their order."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from engines.part import Array, Part
from engines.ports import Session
from schemas.errors import ModelError
from schemas.jobs import Key
from schemas.model import ModelSpec

_Place: TypeAlias = tuple[str, str, int]  # a segment of a job
_MOST_SEGMENTS = 64  # whose states are kept: more than a worker has in hand


class States:
    """The states of the segments that a worker has begun; each begins with the card's `start`. One thread at a time.

    The parts of a segment come in order and to one worker. Each image begins anew.
    """

    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._shown = without_state(model)
        self._feeds = fed_inputs(model)
        self._kept: dict[_Place, tuple[int, dict[str, Array]]] = {}  # the next part, and the state before it

    def bound(self, session: Session, part: Part) -> Session:
        """A session that feeds the state of a part's segment. Raises ModelError when parts before it did not come."""
        key, single = part.meta.key, not part.meta.media.timed
        place = _place(key)
        number, state = (
            self._kept.pop(place, (0, self._start())) if key.part and not single else (key.part, self._start())
        )
        if number != key.part:
            what = f"part {key.part} of segment {key.segment} has no state to begin with"
            raise ModelError(what, "the part before it failed; see that part's failure")

        def keep(after: dict[str, Array]) -> None:
            if not (key.last or single):
                self._kept[place] = key.part + 1, after
                while len(self._kept) > _MOST_SEGMENTS:
                    del self._kept[next(iter(self._kept))]

        keep(state)
        return _Stateful(session, self._shown, self._feeds, state, self._start if single else None, keep)

    def forget(self, part: Part) -> None:
        """Drop the state of a part's segment, for the part failed: those behind it have no state to begin with."""
        self._kept.pop(_place(part.meta.key), None)

    def _start(self) -> dict[str, Array]:
        return first_state(self._model)


def _place(key: Key) -> _Place:
    return key.job.id, key.job.revision, key.segment


class _Stateful:
    """A session that takes one row at a time, without the inputs of the state and the outputs that feed it."""

    def __init__(
        self,
        session: Session,
        shown: ModelSpec,
        feeds: Mapping[str, str],
        state: dict[str, Array],
        fresh: Callable[[], dict[str, Array]] | None,
        keep: Callable[[dict[str, Array]], None],
    ) -> None:
        self._session = session
        self._feeds = feeds
        self._state = state
        self._fresh = fresh
        self._keep = keep
        self.spec = shown
        self.batch_bytes = session.batch_bytes

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one row; see `Session.run`."""
        state = self._fresh() if self._fresh else self._state
        outputs = self._session.run({**inputs, **state})
        self._state = {name: outputs[output] for name, output in self._feeds.items()}
        self._keep(self._state)
        return {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}

    def warm_up(self) -> None:
        """The session behind it was warmed up."""

    def close(self) -> None:
        """The session behind it is closed by its owner."""


def fed_inputs(model: ModelSpec) -> dict[str, str]:
    """Input -> the output that feeds it."""
    return {tensor.name: tensor.state.output for tensor in model.inputs if tensor.state}


def first_state(model: ModelSpec) -> dict[str, Array]:
    """The state before the first run, by input; a free dimension is 1."""
    return {
        tensor.name: np.full(
            [size if isinstance(size, int) else 1 for size in tensor.shape], tensor.state.start, tensor.dtype
        )
        for tensor in model.inputs
        if tensor.state
    }


def without_state(model: ModelSpec) -> ModelSpec:
    """The model as its callers see it: one row at a time, without its state."""
    feeds = fed_inputs(model)
    if not feeds:
        return model
    inputs = tuple(
        tensor.model_copy(update={"shape": (1, *tensor.shape[1:])})
        for tensor in model.inputs
        if tensor.name not in feeds
    )
    outputs = tuple(tensor for tensor in model.outputs if tensor.name not in feeds.values())
    return model.model_copy(update={"inputs": inputs, "outputs": outputs})
