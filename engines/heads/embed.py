"""embed: a vector for each row, to compare by its cosine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.base import HeadOptions, chosen_output, dense, parse_options, row_width
from engines.heads.classify import flat_rows
from engines.heads.view import View
from engines.part import Value
from engines.planned import Tensor
from engines.vectors import unit
from schemas.picture import PictureSpec


class EmbedOptions(HeadOptions):
    """`normalise`: to unit length."""

    output: str = ""
    normalise: bool = True


class Embed:
    """Reads `[N, ...]` of D values a row. Gives `embedding [N, D]` float32, with `normalise` by `engines.vectors`."""

    Options = EmbedOptions
    by_source = needs_view = False

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(EmbedOptions, options, "head embed")
        self.reads = (chosen_output(outputs, self._options.output, "head embed"),)
        self._width = row_width(outputs[self.reads[0]]) or "D"

    def plan(self) -> dict[str, Tensor]:
        """`embedding`."""
        return {"embedding": Tensor("float32", ("N", self._width))}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        vectors = flat_rows(dense(outputs[self.reads[0]], self.reads[0])).astype(np.float32)
        return {"embedding": unit(vectors) if self._options.normalise else vectors}
