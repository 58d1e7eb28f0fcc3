"""detections: writes the objects that a head found, in pixels of the upright source.

`<target>.jsonl` has a line a window, `{"time": seconds, "width", "height", "boxes": [...]}`, or a line an image with
its `name`; an image that failed has `error` and no boxes. A box is `{"box": [x1, y1, x2, y2], "score", "class",
"label"}`, and where the head finds them `keypoints` (a list of x, y, score), `corners` (a list of x, y), `mask`
(COCO's uncompressed RLE of the whole picture) and `text`. Numbers have six significant digits.

`coco = true` writes `<target>.coco.json` beside it, `csv = true` `<target>.csv`, a row a box. For COCO the result of
each part has the labels of all classes: the process that assembles the files knows nothing but the results.

`track = true` numbers the boxes of films where the files are written (`engines.tracking.media`): each box has `track`,
null without one, which COCO's json calls `track_id`. `mot = true` writes `<target>.mot.txt` of them, a row a box:
`frame,track,left,top,width,height,score,-1,-1,-1`, frames from 1. Source: https://motchallenge.net/instructions/
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from engines.encoding import Encoded
from engines.files import PartFile
from engines.outputs.base import BaseFormat
from engines.outputs.box_files import BoxTable, CocoFile, MotTable
from engines.outputs.jsonl import encoded_rows, json_line, rounded, rows_of
from engines.outputs.masks import placed_mask, run_lengths
from engines.outputs.objects import Objects, check_objects, label_of, objects_of, source_sizes, text_of
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from engines.tracking.media import Boxes, MediaTracker, TrackOptions
from schemas.errors import OutputError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_NAME = "detections"


class DetectionsOptions(TrackOptions):
    """Which files to write beside the lines: `coco` for COCO's json, `csv` for a table, `mot` for one of tracks."""

    coco: bool = False
    csv: bool = False
    mot: bool = False

    @model_validator(mode="after")
    def _tracks_for_mot(self) -> Self:
        if self.mot and not self.track:
            raise ValueError("mot = true needs track = true")
        return self


class DetectionsFormat(BaseFormat[DetectionsOptions]):
    """A part's result is its lines, as one array `rows [bytes] uint8`; the other files are made of them."""

    options_class = DetectionsOptions

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check the boxes, and the arrays that belong to them."""
        check_objects(arrays, _NAME)

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines; for COCO with the labels of all classes."""
        encoded = encoded_rows(rows_of(part, self._values(part, tick)))
        return replace(encoded, facts={"labels": list(self._classes)}) if self._options.coco else encoded

    def assemble(self, target: Path, media: MediaInfo) -> "DetectionsAssembler":
        """Start `<target>.jsonl`, and the files that the options add."""
        return DetectionsAssembler(target, media, self._options)

    @property
    def _classes(self) -> tuple[str, ...]:
        return self._labels.get("classes", ())

    def _values(self, part: Part, tick: Tick) -> Iterator[dict[str, Any]]:
        for (height, width), found in zip(source_sizes(part), objects_of(part, _NAME), strict=True):
            yield {"width": width or None, "height": height or None, "boxes": self._boxes(found, height, width)}
            tick()

    def _boxes(self, found: Objects, height: int, width: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"box": rounded(box)} for box in found.boxes.tolist()]
        for number, row in enumerate(rows):
            if found.scores is not None:
                row["score"] = rounded(found.scores[number].item())
            if found.classes is not None:
                row["class"] = int(found.classes[number])
                row["label"] = label_of(self._classes, row["class"])
            if found.keypoints is not None:
                row["keypoints"] = rounded(found.keypoints[number].tolist())
            if found.corners is not None:
                row["corners"] = rounded(found.corners[number].tolist())
            if found.text is not None:
                row["text"] = text_of(self._labels.get("text", ()), found.text[number])
            if found.masks is not None and height and width:
                region = placed_mask(found.masks[number], found.boxes[number], height, width)
                row["mask"] = run_lengths(region, height, width)
        return rows


class DetectionsAssembler:
    """Writes each line as it comes, and adds it to the other files."""

    def __init__(self, target: Path, media: MediaInfo, options: DetectionsOptions) -> None:
        self.notes: list[str] = []
        self._lines = PartFile.create(target.with_name(f"{target.name}.jsonl"))
        self._others: list[CocoFile | BoxTable | MotTable] = []
        self._tracker = MediaTracker(options, media) if options.track and media.timed else None
        self._coco: CocoFile | None = None
        try:
            if options.coco:
                self._coco = CocoFile(target, media)
                self._others.append(self._coco)
            if options.csv:
                self._others.append(BoxTable(target, media, tracked=self._tracker is not None))
            if options.mot and self._tracker is not None:
                self._others.append(MotTable(target, self._tracker))
        except Exception:
            self.abort()
            raise

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's lines. Raises OutputError."""
        data = arrays["rows"].tobytes()
        if not self._others and self._tracker is None:
            self._lines.write(data)
            return
        try:
            if self._coco is not None:
                self._coco.name_classes(facts.get("labels", ()))
            rows = [json.loads(line) for line in data.splitlines()]
            for row in rows if self._tracker is None else _numbered(meta, rows, self._tracker):
                if "error" not in row:
                    for file in self._others:
                        file.add(row)
                if self._tracker is not None:
                    self._lines.write(json_line(row).encode())
            if self._tracker is None:
                self._lines.write(data)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise OutputError(f"a result of detections has a line of another form: {error}") from error

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: the lines hold no sound."""

    def close(self) -> list[Path]:
        """Finish the files."""
        return [self._lines.commit(), *(file.close() for file in self._others)]

    def abort(self) -> None:
        """Remove the unfinished files."""
        self._lines.discard()
        for file in self._others:
            file.abort()


def _numbered(meta: PartMeta, rows: Sequence[dict[str, Any]], tracker: MediaTracker) -> Iterator[dict[str, Any]]:
    """Yield the lines of a part of a film, with the `track` of each box."""
    for row, numbers in zip(rows, tracker.number(meta, [_boxes_in(row) for row in rows]), strict=True):
        for box, number in zip(row["boxes"], numbers.tolist(), strict=True):
            box["track"] = number or None
        yield row


def _boxes_in(row: Mapping[str, Any]) -> Boxes:
    boxes = row["boxes"]
    corners = np.array([box["box"] for box in boxes], np.float64).reshape(-1, 4)
    scores = np.array([box.get("score", 1.0) for box in boxes], np.float64)  # null, which is not finite, becomes NaN
    return Boxes(corners, scores, np.array([box.get("class", 0) for box in boxes], np.int64))
