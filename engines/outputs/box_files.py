"""The files that `detections` writes beside its lines: a table of boxes, one of tracks, and COCO's json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.files import PartFile, writing
from engines.outputs.jsonl import rounded
from engines.outputs.tables import CsvFile, Spool, json_text
from engines.tracking.media import MediaTracker
from schemas.media import MediaInfo

_COLUMNS = ("width", "height", "x1", "y1", "x2", "y2", "score", "class", "label")


class BoxTable:
    """A csv with a row a box."""

    def __init__(self, target: Path, media: MediaInfo, tracked: bool) -> None:
        self._first = "time" if media.timed else "name"
        self._more = ("track",) if tracked else ()
        self._file = CsvFile(target, (self._first, *_COLUMNS, *self._more))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the boxes of a line."""
        start = [row[self._first], row["width"], row["height"]]
        self._file.write(
            [*start, *box["box"], *(box.get(name) for name in ("score", "class", "label", *self._more))]
            for box in row["boxes"]
        )

    def close(self) -> Path:
        """Finish the file."""
        return self._file.close()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.abort()


class MotTable:
    """A table of tracks in the form of the MOT challenge."""

    def __init__(self, target: Path, tracker: MediaTracker) -> None:
        self._tracker = tracker
        self._file = PartFile.create(target.with_name(f"{target.name}.mot.txt"))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the boxes of the tracker's last frame that have a track."""
        for box in row["boxes"]:
            if box["track"] is not None:
                left, top, right, bottom = box["box"]
                size = rounded(right - left), rounded(bottom - top)
                values = (self._tracker.frame, box["track"], left, top, *size, box.get("score", 1), -1, -1, -1)
                self._file.write(f"{','.join(map(str, values))}\n".encode())

    def close(self) -> Path:
        """Finish the file."""
        return self._file.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.discard()


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
    if box.get("track") is not None:
        row["track_id"] = box["track"]
    return {**row, "iscrowd": 0, "score": box.get("score")}
