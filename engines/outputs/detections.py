"""detections: writes the objects that a head found, in pixels of the upright source.

`<target>.jsonl` has a line a window, `{"time": seconds, "width", "height", "boxes": [...]}`, or a line an image with
its `name`; an image that failed has `error` and no boxes. A box is `{"box": [x1, y1, x2, y2], "score", "class",
"label"}`, and where the head finds them `keypoints` (a list of x, y, score), `corners` (a list of x, y) and `mask`
(COCO's uncompressed RLE of the whole picture). Numbers have six significant digits.

`coco = true` writes `<target>.coco.json` beside it, `csv = true` `<target>.csv`, a row a box. For COCO the result of
each part has the labels of all classes: the process that assembles the files knows nothing but the results.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.encoding import Encoded
from engines.files import PartFile, writing
from engines.options import Options
from engines.outputs.base import BaseFormat
from engines.outputs.jsonl import encoded_rows, rounded, rows_of
from engines.outputs.masks import placed_mask, run_lengths
from engines.outputs.objects import Objects, check_objects, label_of, objects_of, source_sizes
from engines.outputs.tables import CsvFile, Spool, json_text
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from schemas.errors import OutputError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_NAME = "detections"
_COLUMNS = ("width", "height", "x1", "y1", "x2", "y2", "score", "class", "label")


class DetectionsOptions(Options):
    """Which files to write beside the lines: `coco` for COCO's json, `csv` for a table."""

    coco: bool = False
    csv: bool = False


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
            if found.masks is not None and height and width:
                region = placed_mask(found.masks[number], found.boxes[number], height, width)
                row["mask"] = run_lengths(region, height, width)
        return rows


class DetectionsAssembler:
    """Writes each line as it comes, and adds it to the other files."""

    def __init__(self, target: Path, media: MediaInfo, options: DetectionsOptions) -> None:
        self.notes: list[str] = []
        self._lines = PartFile.create(target.with_name(f"{target.name}.jsonl"))
        self._others: list[CocoFile | _BoxTable] = []
        self._coco: CocoFile | None = None
        try:
            if options.coco:
                self._coco = CocoFile(target, media)
                self._others.append(self._coco)
            if options.csv:
                self._others.append(_BoxTable(target, media))
        except Exception:
            self.abort()
            raise

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's lines. Raises OutputError."""
        data = arrays["rows"].tobytes()
        self._lines.write(data)
        if not self._others:
            return
        try:
            if self._coco is not None:
                self._coco.name_classes(facts.get("labels", ()))
            for line in data.splitlines():
                row = json.loads(line)
                if "error" not in row:
                    for file in self._others:
                        file.add(row)
        except (ValueError, KeyError, TypeError) as error:
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


class _BoxTable:
    """A csv with a row a box."""

    def __init__(self, target: Path, media: MediaInfo) -> None:
        self._first = "time" if media.timed else "name"
        self._file = CsvFile(target, (self._first, *_COLUMNS))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the boxes of a line."""
        start = [row[self._first], row["width"], row["height"]]
        self._file.write(
            [*start, *box["box"], box.get("score"), box.get("class"), box.get("label")] for box in row["boxes"]
        )

    def close(self) -> Path:
        """Finish the file."""
        return self._file.close()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.abort()


class CocoFile:
    """COCO's json of detections: `images`, `annotations` and `categories`; ids of images and annotations begin with 1.

    `categories` are all classes of the model; a category's id is the class's number, from 0. Frames of a video have its
    name as `file_name`, and their `time`. Source: https://cocodataset.org/#format-data
    """

    def __init__(self, target: Path, media: MediaInfo) -> None:
        self._name = media.name
        self._classes: dict[int, str] = {}
        self._images = self._annotations = 0
        self._spool = Spool(target.parent)
        try:
            self._file = PartFile.create(target.with_name(f"{target.name}.coco.json"))
        except Exception:
            self._spool.close()
            raise
        self._file.write(b'{"images": [')

    def name_classes(self, labels: Sequence[str]) -> None:
        """Take the labels of all classes, as each part's result has them."""
        self._classes |= {number: str(label) for number, label in enumerate(labels)}

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a line of detections."""
        image = {"file_name": row.get("name", self._name), "width": row["width"], "height": row["height"]}
        if "time" in row:
            image["time"] = row["time"]
        self._images += 1
        self._file.write(_listed({"id": self._images, **image}, first=self._images == 1))
        for box in row["boxes"]:
            self._annotations += 1
            annotation = {"id": self._annotations, "image_id": self._images, **_annotation(box)}
            self._spool.write(_listed(annotation, first=self._annotations == 1))
            self._classes.setdefault(annotation["category_id"], box.get("label", str(annotation["category_id"])))

    def close(self) -> Path:
        """Finish the file."""
        self._file.write(b'\n],\n"annotations": [')
        with writing(self._file.path):
            self._spool.copy_to(self._file.file)
        categories = [{"id": number, "name": name} for number, name in sorted(self._classes.items())]
        self._file.write(f'\n],\n"categories": {json_text(categories)}}}\n'.encode())
        self._spool.close()
        return self._file.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._spool.close()
        self._file.discard()


def _listed(row: Mapping[str, Any], first: bool) -> bytes:
    return f"{'' if first else ','}\n{json_text(row)}".encode()


def _annotation(box: Mapping[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = box["box"]
    width, height = rounded(right - left), rounded(bottom - top)
    row = {"category_id": box.get("class", 0), "bbox": [left, top, width, height], "area": rounded(width * height)}
    if "mask" in box:
        row |= {"segmentation": box["mask"], "area": sum(box["mask"]["counts"][1::2])}
    elif "corners" in box:
        row["segmentation"] = [[value for point in box["corners"] for value in point]]
    if "keypoints" in box:
        seen = [2 if score else 0 for _, _, score in box["keypoints"]]  # 2: labelled and visible
        row["keypoints"] = [
            value for (x, y, _), state in zip(box["keypoints"], seen, strict=True) for value in (x, y, state)
        ]
        row["num_keypoints"] = sum(map(bool, seen))
    return {**row, "iscrowd": 0, "score": box.get("score")}
