"""tag: all labels whose score exceeds a threshold; each category may have a threshold of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.heads.activations import ACTIVATIONS, Activation
from engines.heads.base import HeadOptions, Labels, Share, check_labels, chosen_output, dense, parse_options, row_width
from engines.heads.classify import flat_rows
from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.picture import PictureSpec


class TagOptions(HeadOptions):
    """`categories`: the category of each label; `thresholds`: thresholds by category, instead of `threshold`.

    `best_only`: categories of which only the label with the highest score is given, without a threshold. `hidden`:
    categories that are left out.
    """

    output: str = ""
    labels: Labels
    categories: Labels = ()
    threshold: Share = 0.35
    thresholds: dict[str, Share] = {}  # noqa: RUF012 - pydantic copies it
    best_only: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    activation: Activation = "none"


class Tag:
    """Reads `[N, T]`. Gives `tags [M]` int32, numbers of labels, and `scores [M]` float32, ordered by falling score.

    Source: SmilingWolf's WD taggers as kohya-ss/sd-scripts reads them, finetune/tag_images_by_wd14_tagger.py: sigmoid
    is in the graph, `best_only = ["rating"]`. DeepDanbooru: no categories, threshold 0.5.
    """

    Options = TagOptions
    by_source = needs_view = False

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        self._options = parsed = parse_options(TagOptions, options, "head tag")
        self.reads = (chosen_output(outputs, parsed.output, "head tag"),)
        check_labels(parsed.labels, row_width(outputs[self.reads[0]]), "head tag")
        if parsed.categories and len(parsed.categories) != len(parsed.labels):
            what = f"head tag: {len(parsed.categories)} categories for {len(parsed.labels)} labels"
            raise ModelError(what, "give the category of each label")
        unknown = {*parsed.thresholds, *parsed.best_only, *parsed.hidden} - set(parsed.categories)
        if unknown:
            known = ", ".join(sorted(set(parsed.categories))) or "none"
            raise ModelError(f"head tag: there is no category {min(unknown)}", f"the categories are: {known}")
        categories = np.array(parsed.categories or ("",) * len(parsed.labels))
        self._best_only = [np.flatnonzero(categories == category) for category in parsed.best_only]
        self._thresholds = np.array([parsed.thresholds.get(each, parsed.threshold) for each in categories], np.float32)
        self._thresholds[np.isin(categories, [*parsed.hidden, *parsed.best_only])] = np.inf

    def plan(self) -> dict[str, Tensor]:
        """`tags` and `scores`."""
        labels, categories = self._options.labels, self._options.categories
        return {
            "tags": Tensor("int32", ("N", "count"), ragged=True, labels=labels, categories=categories),
            "scores": Tensor("float32", ("N", "count"), ragged=True),
        }

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        values = flat_rows(dense(outputs[self.reads[0]], self.reads[0])).astype(np.float32, copy=False)
        scores = ACTIVATIONS[self._options.activation](values)
        chosen: Array = scores > self._thresholds
        for members in self._best_only:
            best = members[scores[:, members].argmax(axis=1)]
            chosen[np.arange(len(scores)), best] = True
        rows, tags = np.nonzero(chosen)
        found = scores[rows, tags]
        order = np.lexsort((tags, -found, rows))
        offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int64)
        return {"tags": Ragged(tags[order].astype(np.int32), offsets), "scores": Ragged(found[order], offsets)}
