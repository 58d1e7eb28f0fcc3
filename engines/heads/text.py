"""text: scores of characters along a line of text -> the line, by CTC's greedy rule."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import Count, HeadOptions, Labels, chosen_output, dense, parse_options
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class TextOptions(HeadOptions):
    """`labels`: the characters, without the blank, which is class 0. `longest`: the most characters of a line."""

    output: str = ""
    labels: Labels
    activation: Activation = "none"
    longest: Count = 320


class Text:
    """Reads `[N, T, classes]`. Gives `text [N, longest]` int32, numbers of labels, -1 behind the last character, and
    `scores [N]` float32, the mean score of the characters, 0 where there is none.

    Of each place the best class counts; classes that repeat are one character, and blanks none. Source: Graves et al.
    (2006), section 3.2, best path; PaddleOCR, ppocr/postprocess/rec_postprocess.py.
    """

    Options = TextOptions
    by_source = needs_view = False

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parse_options(TextOptions, options, "head text")
        self.reads = (chosen_output(outputs, self._options.output, "head text"),)
        shape, count = outputs[self.reads[0]].shape, len(self._options.labels) + 1
        if len(shape) != 3 or (isinstance(shape[2], int) and shape[2] != count):
            what = f"head text: output {self.reads[0]} is {list(shape)}, with {count - 1} labels and a blank"
            raise ModelError(what, f"it reads [N, T, {count}]: give a label for each class but the first")

    def plan(self) -> dict[str, Tensor]:
        """`text` and `scores`."""
        longest = self._options.longest
        return {
            "text": Tensor("int32", ("N", longest), labels=self._options.labels),
            "scores": Tensor("float32", ("N",)),
        }

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        scores = ACTIVATIONS[self._options.activation](dense(outputs[self.reads[0]], self.reads[0]))
        classes = scores.argmax(axis=2)
        best = np.take_along_axis(scores, classes[..., None], axis=2)[..., 0]
        kept = classes > 0
        kept[:, 1:] &= classes[:, 1:] != classes[:, :-1]
        text = np.full((len(classes), self._options.longest), -1, np.int32)
        means = np.zeros(len(classes), np.float32)
        for number, places in enumerate(kept):
            found: Array = classes[number, places][: self._options.longest] - 1
            text[number, : len(found)] = found
            means[number] = best[number, places].mean(dtype=np.float64) if len(found) else 0
        return {"text": text, "scores": means}
