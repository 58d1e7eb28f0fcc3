"""An installed package that adds the operators `spelled`, a text for each window, and `refused`, which joins none."""

import time
from collections.abc import Sequence
from pathlib import Path

from engines.operators.base import BaseOperator
from engines.operators.join import Join, JoinOptions
from engines.options import Options
from engines.part import Part, Tick, Value
from engines.planned import Arrays
from engines.ports import Session
from engines.texts import TEXT, text_rows, text_tensor
from schemas.errors import MediaError, RigflowError


class SpelledOptions(Options):
    """`pace_s`: seconds that a part takes; the window that begins at `fails_at` cannot be read while there is a file
    `broken`, that at `silent_at` has no words.
    """

    pace_s: float = 0.0
    fails_at: float = -1.0
    broken: str = ""
    silent_at: float = -1.0


class RefusedOptions(JoinOptions):
    """`broken` is a path."""

    broken: str = ""


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


class Refused(Join):
    """Takes the text of an entire media, and makes nothing of it while there is a file `broken`."""

    options_class = RefusedOptions

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        if Path(self._options.broken).exists():
            return [MediaError("its text cannot be joined") for _ in parts]
        return super().run(parts, session, tick)
