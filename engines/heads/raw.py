"""raw: an output as the model gives it, with labels for its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.heads.base import HeadOptions, Labels, check_labels, chosen_output, parse_options
from engines.heads.view import View
from engines.part import Value
from engines.planned import Tensor
from schemas.picture import PictureSpec


class RawOptions(HeadOptions):
    """`labels` of the columns of the output."""

    output: str = ""
    labels: Labels = ()


class Raw:
    """Reads one output, and gives it unchanged under its name."""

    Options = RawOptions
    by_source = needs_view = False

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(RawOptions, options, "head raw")
        self.reads = (chosen_output(outputs, self._options.output, "head raw"),)
        self._tensor = outputs[self.reads[0]]
        columns = self._tensor.shape[-1]
        check_labels(self._options.labels, columns if isinstance(columns, int) else 0, "head raw")

    def plan(self) -> dict[str, Tensor]:
        """The output."""
        return {self.reads[0]: replace(self._tensor, labels=self._options.labels)}

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        return {self.reads[0]: outputs[self.reads[0]]}
