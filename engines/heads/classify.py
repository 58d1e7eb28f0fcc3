"""classify: the classes with the highest scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import Count, HeadOptions, Labels, check_labels, chosen_output, dense, parse_options, row_width
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec

_USUAL_TOP = 5


class ClassifyOptions(HeadOptions):
    """`top`: number of classes in the result; by default 5, or all if there are fewer.

    `activation` makes scores of the output: softmax, sigmoid or none.
    """

    output: str = ""
    labels: Labels = ()
    top: Count | None = None
    activation: Activation = "none"


class Classify:
    """Reads `[N, C]`, or `[N, C, 1, 1]`. Gives `classes [N, top]` int32 and `scores [N, top]` float32.

    Ordered by falling score; of equal scores, the lower class number comes first.
    """

    Options = ClassifyOptions
    by_source = needs_view = False

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(ClassifyOptions, options, "head classify")
        self.reads = (chosen_output(outputs, self._options.output, "head classify"),)
        self._classes = row_width(outputs[self.reads[0]]) or len(self._options.labels)
        check_labels(self._options.labels, self._classes, "head classify")
        self._top = self._options.top or min(_USUAL_TOP, self._classes or _USUAL_TOP)
        if self._classes and self._classes < self._top:
            raise ModelError(f"head classify: top = {self._top} of {self._classes} classes", "lower top")

    def plan(self) -> dict[str, Tensor]:
        """`classes` and `scores`."""
        return {
            "classes": Tensor("int32", ("N", self._top), labels=self._options.labels),
            "scores": Tensor("float32", ("N", self._top)),
        }

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        values = dense(outputs[self.reads[0]], self.reads[0])
        scores = ACTIVATIONS[self._options.activation](flat_rows(values).astype(np.float32, copy=False))
        classes = np.argsort(-scores, axis=1, kind="stable")[:, : self._top]
        return {"classes": classes.astype(np.int32), "scores": np.take_along_axis(scores, classes, axis=1)}


def flat_rows(values: Array) -> Array:
    """Reshape `[N, ...]` to `[N, C]`."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))
