"""What all heads of detectors share: candidates, suppression, and coordinates in the source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from engines.heads.base import HeadOptions, check_labels, own_and_other, parse_options
from engines.heads.decoders.base import BoxOptions, Candidates, Decoder
from engines.heads.reductions import Reduction, reductions_of
from engines.heads.suppression import BOX_OVERLAP, Overlap, best_of_rows, by_group, by_number, suppress
from engines.heads.view import View, WayBack
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.registry import load, names
from schemas.errors import ModelError

MOST_CANDIDATES = 30_000  # of a picture, for suppression; the number is Ultralytics' max_nms


@dataclass(frozen=True, slots=True)
class Found:
    """The detections of a batch, ordered by row and falling score; row i ends at `offsets[i + 1]`.

    `candidates` are in pixels of the model's picture; `boxes [M, 4]` float32 in pixels of the source, clipped to it.
    """

    candidates: Candidates
    boxes: Array
    offsets: Array
    way_back: WayBack

    def arrays(self) -> dict[str, Value]:
        """Return `boxes` in pixels of the source, `scores` and `classes`, which every head of a detector returns."""
        found = self.candidates
        return {
            "boxes": self.ragged(self.boxes),
            "scores": self.ragged(found.scores),
            "classes": self.ragged(found.classes),
        }

    def ragged(self, values: Array) -> Ragged:
        """Return an array of one value for each box as a ragged array with one row for each picture."""
        return Ragged(values, self.offsets)


class DetectorOptions(HeadOptions):
    """`decoder` names a file of `engines.heads.decoders`; the other options are the decoder's."""

    decoder: str = ""


class Detector:
    """Base of the heads of detectors: a decoder with the options of its head.

    `extra`: how many values beside a box the head needs. A head adds `decode`, and what it makes of these values.
    """

    Options: ClassVar[type[DetectorOptions]] = DetectorOptions
    by_source, needs_view = False, True

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], head: str, extra: int = 0) -> None:
        self._extra = extra
        own, others = own_and_other(self.Options, options)
        name = parse_options(self.Options, own, f"head {head}").decoder
        if not name:
            raise ModelError(f"head {head} needs a decoder", f"there are {', '.join(names('decoders'))}")
        kind: type[Decoder] = load("decoders", name)
        self._options: BoxOptions = parse_options(kind.Options, others, f"decoder {name}")
        self.decoder: Decoder = kind(self._options, outputs, extra)
        check_labels(self._options.labels, self.decoder.classes, f"head {head}")

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the outputs that the decoder reads."""
        return self.decoder.reads

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """The reductions of the decoder."""
        return reductions_of(self.decoder)

    def plan(self) -> dict[str, Tensor]:
        """Return the arrays of `Found.arrays`."""
        return {
            "boxes": Tensor("float32", ("N", "count", 4), ragged=True),
            "scores": Tensor("float32", ("N", "count"), ragged=True),
            "classes": Tensor("int32", ("N", "count"), ragged=True, labels=self._options.labels),
        }

    def find(
        self,
        outputs: Mapping[str, Value],
        views: Sequence[View],
        overlap: Overlap = BOX_OVERLAP,
        enclosing: Callable[[Candidates], Array] = lambda candidates: candidates.boxes,
    ) -> Found:
        """Return the detections of a batch.

        `enclosing` returns the boxes `[C, 4]` of candidates. A candidate whose box has no area in the source, for
        example because it lies in the padding, is dropped before suppression, as torchvision's `remove_small_boxes` and
        Detectron2's `nonempty` do.
        """
        way_back = WayBack(views)
        if not views:
            return Found(_none(self._extra), np.zeros((0, 4), np.float32), np.zeros(1, np.int64), way_back)
        with np.errstate(all="ignore"):  # values that are NaN or infinite are dropped below
            candidates = self.decoder.candidates(outputs, views[0].picture)
            usable = np.isfinite(candidates.scores) & (candidates.classes >= 0) & (candidates.rows < len(views))
            for side in candidates.boxes.T:  # a fifth of the time of one call over all sides
                usable &= ~np.isnan(side)
            if not usable.all():
                candidates = _taken(candidates, np.flatnonzero(usable))
            boxes = way_back.boxes(enclosing(candidates), candidates.rows)
            left, top, right, bottom = boxes.T
            seen = np.flatnonzero((right > left) & (bottom > top))
        if len(seen) < len(boxes):
            candidates, boxes = _taken(candidates, seen), boxes[seen]
        chosen = self._chosen(candidates, overlap)
        candidates, boxes = _taken(candidates, chosen), boxes[chosen]
        offsets = np.searchsorted(candidates.rows, np.arange(len(views) + 1)).astype(np.int64)
        return Found(candidates, boxes, offsets, way_back)

    def _chosen(self, candidates: Candidates, overlap: Overlap) -> Array:
        """Return the indices of the detections, by row and falling score."""
        options, rows = self._options, candidates.rows
        ordered = by_group(candidates.scores, rows)
        if options.nms < 1 and len(ordered):
            if len(ordered) > MOST_CANDIDATES:
                ordered = best_of_rows(ordered, rows, MOST_CANDIDATES)
            groups = rows[ordered]
            if options.class_aware:
                groups = groups * (int(candidates.classes.max()) + 1) + candidates.classes[ordered]
            by_class = by_number(groups)
            shapes = candidates.boxes
            if not overlap.of_boxes:
                shapes = np.concatenate([shapes, candidates.extra], axis=-1)
            among = ordered[by_class]
            kept = suppress(shapes[among], groups[by_class], options.nms, options.max, overlap)
            ordered = ordered[np.sort(by_class[kept])]
        return best_of_rows(ordered, rows, options.max)


def _none(extra: int) -> Candidates:
    none = np.zeros(0, np.int64)
    return Candidates.of(none, np.zeros((0, 4)), none, none, np.zeros((0, extra)))


def _taken(found: Candidates, chosen: Array) -> Candidates:
    return Candidates(
        found.rows[chosen], found.boxes[chosen], found.scores[chosen], found.classes[chosen], found.extra[chosen]
    )
