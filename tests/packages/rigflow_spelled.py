"""An installed package that adds the operator `spelled`: a text for each window, as a network of speech gives."""

import time
from pathlib import Path

from engines.operators.base import BaseOperator
from engines.options import Options
from engines.part import Part, Value
from engines.planned import Arrays
from engines.texts import TEXT, text_rows, text_tensor
from schemas.errors import MediaError


class SpelledOptions(Options):
    """`pace_s`: seconds that a part takes; the window that begins at `fails_at` cannot be read while there is a file
    `broken`, that at `silent_at` has no words.
    """

    pace_s: float = 0.0
    fails_at: float = -1.0
    broken: str = ""
    silent_at: float = -1.0


class Spelled(BaseOperator[SpelledOptions]):
    options_class = SpelledOptions

    def plan(self, inputs: Arrays) -> Arrays:
        return {TEXT: text_tensor()}

    def apply(self, part: Part) -> dict[str, Value]:
        time.sleep(self._options.pace_s)
        starts = [part.meta.media.clock.seconds(pts) for pts in part.meta.pts]
        if self._options.fails_at in starts and Path(self._options.broken).exists():
            raise MediaError("it cannot be read")
        return {TEXT: text_rows(["" if at == self._options.silent_at else f" second {at:g}\n" for at in starts])}
