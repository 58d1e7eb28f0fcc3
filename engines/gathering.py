"""The parts of a media become one part, in front of an operator that needs the entire media (`entire_media`).

Workers publish what comes before that stage among the job's results. The collector, which gets these in order, puts
them together and sends them to the stage as one part: the segment behind the last one of the media.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engines.part import Part, Value
from engines.ports import Operator
from engines.ragged import Ragged
from engines.registry import load
from schemas.cards import MOST_MARKS, most_telling
from schemas.errors import MediaError, PipelineError
from schemas.jobs import Key
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage, PipelineSpec

GATHERED_MARKS = MOST_MARKS - 64  # of a part of an entire media: the stages behind it add theirs


def gathering_stage(spec: PipelineSpec) -> OperatorStage | None:
    """Return the stage that takes the entire media as one part; None if there is none. Raises PipelineError."""
    return next((stage for stage in spec.operators if load("operators", stage.kind).entire_media), None)


def check_gathering(spec: PipelineSpec, operators: Mapping[str, Operator]) -> None:
    """Raise PipelineError unless what stands behind a stage of the entire media needs no frames or states."""
    takers = [number for number, stage in enumerate(spec.operators) if operators[stage.name].entire_media]
    if not takers:
        return
    first, *more = (spec.operators[number] for number in takers)
    if more:
        what = f"stage `{more[0].name}` takes the entire media, and so does `{first.name}` before it"
        raise PipelineError(what, "leave one of them out")
    if untimed := [kind for kind in spec.media if not load("media", kind).timed]:
        what = f"stage `{first.name}` takes an entire media, and items of {untimed[0]} are independent"
        raise PipelineError(what, "leave the stage out")
    for stage in spec.operators[takers[0] :]:
        operator = operators[stage.name]
        if operator.in_order or operator.pictures({}) or operator.sounds({}):
            what = f"stage `{stage.name}` takes frames or sound, and stage `{first.name}` before it joins the media"
            raise PipelineError(what, f"put it before `{first.name}`")


@dataclass(slots=True)
class Gathering:
    """The parts of a media, added in order, until `part` makes one of them."""

    _meta: PartMeta | None = None
    _pts: list[int] = field(default_factory=list)
    _arrays: dict[str, list[Value]] = field(default_factory=dict)
    _cards: dict[str, None] = field(default_factory=dict)

    def add(self, meta: PartMeta, arrays: Mapping[str, Value]) -> None:
        """Take the next part. Raises MediaError for one with other arrays."""
        if self._meta is not None and arrays.keys() != self._arrays.keys():
            raise MediaError("a part has other arrays than those before it", "send the media again")
        self._meta = self._meta or meta
        self._pts += meta.pts
        self._cards |= dict.fromkeys(meta.cards)
        for name, array in arrays.items():
            self._arrays.setdefault(name, []).append(array)

    def part(self, segment: int) -> Part:
        """Return the part with all windows, as the only one of that segment."""
        assert self._meta is not None, "a media has a part"
        key = Key(job=self._meta.key.job, segment=segment, final=True)
        cards = most_telling(self._cards, GATHERED_MARKS)
        meta = PartMeta(key=key, media=self._meta.media, pts=tuple(self._pts), cards=cards)
        return Part(meta, {name: _joined(values) for name, values in self._arrays.items()})


def _joined(values: list[Value]) -> Value:
    ragged = [value for value in values if isinstance(value, Ragged)]
    if ragged and len(ragged) < len(values):
        raise MediaError("an array of a part is ragged, and that of another is not", "send the media again")
    if ragged:
        return Ragged.joined(ragged)
    return np.concatenate([value for value in values if not isinstance(value, Ragged)])
