"""join: the texts of all windows of a media -> one text, for stages that need all of it, such as a language model."""

from collections.abc import Sequence

from pydantic import Field

from engines.operators.base import BaseOperator
from engines.options import Options
from engines.part import Part, Tick
from engines.planned import Arrays
from engines.ports import Session
from engines.ragged import Ragged
from engines.texts import TEXT, needed_text, text_of_row, text_rows, text_tensor
from schemas.errors import PipelineError, RigflowError
from schemas.media import MediaInfo


class JoinOptions(Options):
    r"""`between` stands between two texts: a space, or "\n"."""

    between: str = Field(default="\n", max_length=100)


class Join(BaseOperator[JoinOptions]):
    """`text`, a row a window, of the entire media -> `text [1]`. Windows without text are left out."""

    options_class = JoinOptions
    entire_media = (TEXT,)

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the text. Raises PipelineError if there is none."""
        needed_text(self._stage, inputs, self._source)
        if self._stage.keeps:
            what = f"stage `{self._stage.name}` makes one row of a media, and cannot keep `{self._stage.keeps[0]}`"
            raise PipelineError(what, "leave out `keeps`")
        return {TEXT: text_tensor()}

    @property
    def _source(self) -> str:
        return self._stage.reads.get(TEXT, TEXT)

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with one row, or its error."""
        outcomes: list[Part | RigflowError] = []
        for part in parts:
            texts = part.arrays.get(self._source)
            if not isinstance(texts, Ragged) or len(texts) != len(part.meta.pts):
                what = f"a part of {len(part.meta.pts)} windows does not have `{self._source}` for each"
                outcomes.append(PipelineError(what))
                continue
            spoken = [text for number in range(len(texts)) if (text := text_of_row(texts, number).strip())]
            media, made = part.meta.media, {TEXT: text_rows([self._options.between.join(spoken)])}
            outcomes.append(part.with_arrays(made, pts=(media.origin,), media=_as_one_window(media)))
            tick()
        return outcomes


def _as_one_window(media: MediaInfo) -> MediaInfo:
    """The media, of which one window is all: its failure is that of all seconds."""
    duration_ms = min(round(media.duration_s * 1000), (1 << 31) - 1)
    return media.model_copy(update={"frame_rate": (1000, duration_ms)}) if duration_ms > 0 else media
