"""embed: `text`, a row of UTF-8 a window, becomes `embedding [W, D]` float32, by the text tower of a model."""

from collections.abc import Sequence

import numpy as np

from engines.operators.base import BaseOperator, each_part, each_row, required_model, with_rows
from engines.options import Options
from engines.part import Array, Part, Tick, Value
from engines.planned import Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.text_tower import TextTower
from engines.texts import TEXT, needed_text, text_of_row
from engines.ticking import ticking
from schemas.errors import PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

_EMBEDDING = "embedding"
_RUN_S = 60.0  # a text that takes longer is stuck
_MODEL = "add the folder of a CLIP or SigLIP with its tokenizer, see docs/search.md"


class EmbedOptions(Options):
    """`cut`: a text with more tokens than the model takes is cut; otherwise it is refused."""

    cut: bool = False


class Embed(BaseOperator[EmbedOptions]):
    """A vector of unit length for each text, which compares with those that the model makes of pictures."""

    options_class = EmbedOptions
    needs_model = True
    of_texts = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        """Raises PipelineError for a model without a text tower."""
        super().__init__(stage, model)
        model = required_model(stage, model, _MODEL)
        if model.text is None:
            raise PipelineError(f"stage `{stage.name}`: model `{model.name}` has no text tower", _MODEL)

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the vectors. Raises PipelineError without texts."""
        needed_text(self._stage, inputs, self._source, 'take media = ["text"], or set reads')
        return {_EMBEDDING: Tensor("float32", ("W", "D"))}

    def rows(self, part: Part) -> int:
        """Return 0: a text waits for no other, because each is a run of its own."""
        return 0

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its vectors. A text that cannot be embedded is a failed item."""
        assert isinstance(session, TextTower), "the card names the backend"
        return each_part(parts, lambda part: self._embedded(part, session, tick))

    def _embedded(self, part: Part, session: TextTower, tick: Tick) -> Part:
        text, vectors, tokens = part.arrays[self._source], list[Array](), 0
        assert isinstance(text, Ragged), "the plan says so"

        def take(number: int) -> None:
            nonlocal tokens
            with ticking(tick, _RUN_S):
                vector, count = session.embed(text_of_row(text, number), self._options.cut)
            vectors.append(vector)
            tokens += count
            tick()

        errors = each_row(part, take)
        self.counts.add(len(vectors), len(vectors))
        made: dict[str, Value] = {_EMBEDDING: np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)}
        done = with_rows(part, made, errors, self._stage.keeps, ())
        return done.with_arrays(done.arrays, tokens=done.meta.tokens + tokens)

    @property
    def _source(self) -> str:
        return self._stage.reads.get(TEXT, TEXT)
