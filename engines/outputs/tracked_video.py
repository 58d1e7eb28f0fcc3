"""A video with boxes and the numbers of their tracks drawn on it.

The number of a track depends on all frames before, and workers see parts in any order. So they encode the pictures
undrawn, quickly and at a higher quality, with what was found beside them; where the
file is written, in the order of the media, boxes get their numbers, and each part is decoded, drawn on and encoded.
Parts are independent there too, so that several threads work on them; the file does not depend on how many.

The arrays of a part's result are those of `engines.outputs.gop`, and of each array NAME that was found `NAME@found`,
with `NAME@offsets` if its rows differ in length. `facts`: the `encoder`, the height, width and number of planes of the
`picture`, its `colour`, and the `labels` of arrays.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.plane import VideoPlane

from engines.encoding import Colour, Encoded, PictureEncoder, Pictures, VideoOptions
from engines.machine import cores
from engines.media.limits import decoder_pixels
from engines.outputs.base import Labels
from engines.outputs.colour import LazyPlane
from engines.outputs.draw import Canvas, ycbcr_paint
from engines.outputs.findings import findings_of, found_in
from engines.outputs.gop import decode_h264
from engines.outputs.jsonl import rounded
from engines.outputs.mux import VideoFile
from engines.outputs.objects import Objects
from engines.outputs.overlay import Finding, Wanted
from engines.outputs.pictures import plane_view
from engines.outputs.software import Software
from engines.outputs.surfaces import HostSurface
from engines.part import Array, Part, Tick, Value
from engines.ragged import Ragged
from engines.tracking.media import Boxes, MediaTracker, TrackOptions, boxes_of
from schemas.errors import OutputError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_CRF = VideoOptions().quantiser  # other codecs have larger numbers for the same quality
_FINER = 10.0  # of crf: of real clips, being encoded twice costs 0.2 to 0.35 dB of PSNR then
_FOUND, _OFFSETS = "@found", "@offsets"


def undrawn(
    part: Part, pictures: Pictures, encoder: PictureEncoder, options: VideoOptions, labels: Labels, tick: Tick
) -> Encoded:
    """Return the pictures of a part as they are, and what was found in them."""
    crf = max(1.0, min(options.quantiser, _CRF) - _FINER)
    finer = VideoOptions(crf=crf, preset="ultrafast")
    encoded = encoder.encode(pictures, finer, tick)
    arrays = dict(encoded.arrays)
    for name, value in found_in(part).arrays.items():
        arrays[f"{name}{_FOUND}"] = value.values if isinstance(value, Ragged) else value
        if isinstance(value, Ragged):
            arrays[f"{name}{_OFFSETS}"] = value.offsets
    facts = {
        "encoder": encoded.facts["encoder"],
        "picture": [*pictures.planes[0].shape[1:], len(pictures.planes)],
        "colour": list(pictures.colour),
        "labels": {name: list(words) for name, words in labels.items()},
    }
    return Encoded(arrays, facts)


class TrackedVideo:
    """Numbers, draws on and encodes each part, and writes them into one `VideoFile`."""

    def __init__(
        self, target: Path, media: MediaInfo, options: VideoOptions, tracking: TrackOptions, wanted: Wanted
    ) -> None:
        self._file = VideoFile(target, media)
        self._tracker, self._high = MediaTracker(tracking, media), tracking.track_high
        self._options, self._wanted = options, wanted
        self._threads = cores()
        self._pool = ThreadPoolExecutor(self._threads, "annotated")
        self._waiting: deque[tuple[PartMeta, Future[Encoded]]] = deque()  # parts that are not in the file yet

    @property
    def notes(self) -> list[str]:
        """The notes of the file."""
        return self._file.notes

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Number the part's boxes, and have it encoded; write those that are ready. Raises OutputError."""
        if not meta.pts:
            return
        labels = {name: tuple(words) for name, words in facts["labels"].items()}
        found = list(findings_of(Part(meta, _found(arrays)), labels, self._wanted))
        numbers = self._tracker.number(meta, [_boxes(finding) for finding in found])
        numbered = [_numbered(finding, each, self._high) for finding, each in zip(found, numbers, strict=True)]
        self._waiting.append((meta, self._pool.submit(_drawn, meta, arrays, facts, numbered, self._options)))
        while self._waiting and (self._waiting[0][1].done() or len(self._waiting) > self._threads):
            self._write_next()

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Write what a segment has beside the picture. Raises OutputError and MediaError."""
        self._file.add_tracks(fragment, arrays)

    def close(self) -> list[Path]:
        """Write the last parts, and finish the file."""
        while self._waiting:
            self._write_next()
        self._pool.shutdown()
        return self._file.close()

    def abort(self) -> None:
        """Stop, and remove the unfinished file."""
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._file.abort()

    def _write_next(self) -> None:
        meta, encoded = self._waiting.popleft()
        made = encoded.result()
        self._file.add(meta, made.arrays, made.facts)


def _found(arrays: Mapping[str, Array]) -> dict[str, Value]:
    """Return what was found, from the arrays of a result."""
    found: dict[str, Value] = {}
    for held, array in arrays.items():
        if held.endswith(_FOUND):
            name = held.removesuffix(_FOUND)
            offsets = arrays.get(f"{name}{_OFFSETS}")
            found[name] = array if offsets is None else Ragged(array, offsets)
    return found


def _boxes(finding: Finding) -> Boxes:
    """Return the boxes of a picture, as `detections` writes them: both give the same numbers."""
    found = finding.objects
    assert found is not None, "a format that tracks needs boxes"
    scores = None if found.scores is None else np.array(rounded(found.scores.tolist()), np.float64)
    corners = np.array(rounded(found.boxes.tolist()), np.float64).reshape(-1, 4)
    return boxes_of(corners, scores, found.classes)


def _numbered(finding: Finding, numbers: Array, high: float) -> Finding:
    """Return what to draw with numbers, without the boxes that have none and no score above `high`: these are there to
    prolong tracks.
    """
    objects = finding.objects
    assert objects is not None
    kept = numbers > 0
    kept |= objects.scores > high if objects.scores is not None else True
    arrays = {field.name: getattr(objects, field.name) for field in fields(objects)} | {"tracks": numbers}
    shown = {name: array[kept] for name, array in arrays.items() if array is not None}
    return replace(finding, objects=Objects(**shown))


def _drawn(
    meta: PartMeta,
    arrays: Mapping[str, Array],
    facts: Mapping[str, Any],
    findings: list[Finding],
    options: VideoOptions,
) -> Encoded:
    """Return a part's GOP with the findings drawn on its pictures."""
    rows = _DrawnRows(arrays, facts, findings)
    planes = [cast(Array, LazyPlane(rows, number, shape, np.uint8)) for number, shape in enumerate(rows.shapes)]
    made = Software().encode(Pictures(planes, rows.colour, meta.media), options)
    if rows.left:
        raise OutputError("a result has other pictures than windows", "publish its job again")
    return Encoded(made.arrays, {**made.facts, "encoder": f"{made.facts['encoder']} of {facts['encoder']}"})


class _DrawnRows:
    """The pictures of a part, each decoded and drawn on when it is read, in order; one at a time is in memory."""

    def __init__(self, arrays: Mapping[str, Array], facts: Mapping[str, Any], findings: list[Finding]) -> None:
        self._height, self._width, self._count = facts["picture"]
        self.colour = Colour(*facts["colour"])
        self._paint = ycbcr_paint(self.colour, self._height)
        self._frames = decode_h264(arrays, decoder_pixels(self._width, self._height))
        self._findings = findings
        self._number = 0
        self._newest = self._read()
        self.shapes = [(len(findings), *plane.shape) for plane in self._newest]

    @property
    def left(self) -> bool:
        """Whether there are more pictures."""
        return next(self._frames, None) is not None

    def planes(self, row: int) -> list[Array]:
        """Return the planes of a picture, this one or the next. Raises OutputError if there is none."""
        while self._number < row:
            self._number += 1
            self._newest = self._read()
        return self._newest

    def _read(self) -> list[Array]:
        frame = next(self._frames, None)
        if frame is None:
            raise OutputError("a result has fewer pictures than windows", "publish its job again")
        planes = [self._cut(frame, plane) for plane in frame.planes[: self._count]]
        self._findings[self._number].draw(Canvas(HostSurface(planes), self._paint))
        return planes

    def _cut(self, frame: av.VideoFrame, plane: VideoPlane) -> Array:
        """Return a copy of a plane, without the rows and columns that the encoder added."""
        down, across = frame.height // plane.height, frame.width // plane.width
        return np.array(plane_view(plane)[: -(-self._height // down), : -(-self._width // across)])
