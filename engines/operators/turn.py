"""turn: lines of text that stand on their head, as a classifier found -> corners in the other order."""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from engines.operators.base import BaseOperator
from engines.options import Options
from engines.part import Part, Value
from engines.planned import Arrays
from engines.ragged import Ragged
from schemas.errors import PipelineError

_READS = ("corners", "classes", "scores")


class TurnOptions(Options):
    """`upside_down`: the class that means it. `threshold`: the score above which it counts."""

    upside_down: int = Field(default=1, ge=0, le=10_000)
    threshold: float = Field(default=0.9, ge=0, le=1)


class Turn(BaseOperator[TurnOptions]):
    """Reads `corners [M, 4, 2]`, and `classes [M, top]` and `scores [M, top]` of head classify for each; gives
    `corners`, where those of lines upside down begin with their lower right one.
    """

    options_class = TurnOptions

    def plan(self, inputs: Arrays) -> Arrays:
        """`corners`."""
        if missing := [name for name in _READS if name not in inputs or not inputs[name].ragged]:
            what = f"stage `{self._stage.name}` wants `{missing[0]}` of each line"
            raise PipelineError(
                what, 'put an infer stage over crops before, with a head classify and keeps = ["corners"]'
            )
        return {"corners": inputs["corners"]}

    def apply(self, part: Part) -> Mapping[str, Value]:
        """See the class."""
        found = {name: part.arrays.get(name) for name in _READS}
        corners, classes, scores = found.values()
        if not (isinstance(corners, Ragged) and isinstance(classes, Ragged) and isinstance(scores, Ragged)):
            raise PipelineError(f"stage `{self._stage.name}`: a part lacks corners, classes or scores", "")
        if not len(corners.values) == len(classes.values) == len(scores.values):
            raise PipelineError(f"stage `{self._stage.name}`: corners, classes and scores differ in number", "")
        over = (classes.values[:, 0] == self._options.upside_down) & (scores.values[:, 0] > self._options.threshold)
        turned = np.where(over[:, None, None], np.roll(corners.values, 2, axis=1), corners.values)
        return {"corners": Ragged(turned, corners.offsets)}
