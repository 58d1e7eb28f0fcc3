"""shots: writes the shots of a video, and one picture of each.

`<target>.jsonl` has a line a shot: `{"shot": 1, "start": s, "end": s, "score": of the cut it starts with}`, and
`<target>.png` is the contact sheet. The arrays of a part's result:

    score   [W] float32     each window's: how surely its second frame starts a shot
    at      [N] int32       windows whose second frame has a thumbnail; -1: the media's first frame
    sizes   [N] int32       bytes of each thumbnail
    thumbs  [bytes] uint8   the jpegs
    looks   [W, 6, 8, 3] uint8   what each window's first frame roughly looks like, where pictures are kept

A cut is a window whose score is at least `threshold`, and the highest for `least_s` seconds around, unless it is a
flash, or motion between frames that are far apart: see `engines.outputs.cuts`.
"""

from collections.abc import Container, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from engines.encoding import Encoded
from engines.files import PartFile
from engines.options import Options
from engines.outputs.base import BaseFormat
from engines.outputs.cuts import Cut, CutFinder, Frame, looks
from engines.outputs.jsonl import json_line, rounded
from engines.outputs.pictures import encode_jpeg, encode_png
from engines.outputs.shot_sheet import ShotSheet
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.model import describe
from schemas.parts import PartMeta
from schemas.segments import Fragment


class ShotsOptions(Options):
    """`threshold` of a cut's score, the `least_s` seconds of a shot, and whether to make the contact `sheet`."""

    threshold: float = Field(default=0.3, gt=0, le=1)
    least_s: float = Field(default=0.4, ge=0, le=3600)
    sheet: bool = True


class ShotsFormat(BaseFormat[ShotsOptions]):
    """Needs `score [W]`, and for the sheet `pixels [F, H, W', 3]` and `index [W, 2]`."""

    options_class = ShotsOptions
    # what a window looks like, 144 bytes, and the jpeg of one window in fifty or so: of a picture of 160x90
    stored: ClassVar[Mapping[str, float]] = {"pixels": 0.005, "index": 0.0}

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check the names and shapes of the arrays that `encode` needs."""
        self._check_names(arrays)
        if len(arrays["score"].shape) != 1:
            found = describe(arrays["score"].dtype, arrays["score"].shape)
            raise PipelineError(f"`score` is {found}", "format shots takes one number a window")
        if self._options.sheet:
            frames, pixels = arrays["index"].shape[1], arrays["pixels"]
            if isinstance(frames, int) and frames < 2:
                raise PipelineError("format shots needs windows of two frames", "set window = { frames = 2 }")
            if len(pixels.shape) != 4:
                found = describe(pixels.dtype, pixels.shape)
                raise PipelineError(f"`pixels` is {found}", 'format shots takes layout "rgb", or sheet = false')

    def _check_names(self, arrays: Container[str]) -> None:
        needed = ("score", "pixels", "index") if self._options.sheet else ("score",)
        if missing := [name for name in needed if name not in arrays]:
            raise PipelineError(f"format shots needs `{missing[0]}`", "add it to the model's outputs or to `keeps`")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the scores, and a thumbnail of every frame that may start a shot."""
        self._check_names(part.arrays)
        score: Value = part.arrays["score"]
        if isinstance(score, Ragged):
            raise PipelineError("rows of `score` differ in length", "format shots takes one number a window")
        if score.shape != (len(part.meta.pts),):
            raise PipelineError(
                f"`score` has shape {list(score.shape)} for {len(part.meta.pts)} windows",
                "format shots takes one number a window",
            )
        thumbs = self._thumbs(part) if self._options.sheet else []
        return Encoded(
            {
                **self._looks(part),
                "score": score,
                "at": np.array([window for window, _ in thumbs], dtype=np.int32),
                "sizes": np.array([len(jpeg) for _, jpeg in thumbs], dtype=np.int32),
                "thumbs": np.frombuffer(b"".join(jpeg for _, jpeg in thumbs), dtype=np.uint8),
            }
        )

    def assemble(self, target: Path, media: MediaInfo) -> "ShotsAssembler":
        """Start `<target>.jsonl` and, unless the options exclude it, `<target>.png`."""
        table = PartFile.create(target.with_name(f"{target.name}.jsonl"))
        try:
            picture = PartFile.create(target.with_name(f"{target.name}.png")) if self._options.sheet else None
        except Exception:
            table.discard()
            raise
        return ShotsAssembler(table, picture, media, self._options)

    def _looks(self, part: Part) -> dict[str, Array]:
        if "pixels" not in part.arrays or "index" not in part.arrays:
            return {}
        pixels, index = part.array("pixels"), part.array("index")
        if pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
            return {}
        return {"looks": looks(pixels, index[:, 0])}

    def _thumbs(self, part: Part) -> list[tuple[int, bytes]]:
        pixels, index, score = (part.array(name) for name in ("pixels", "index", "score"))
        key = part.meta.key
        first = [(-1, index[0, 0])] if len(index) and (key.segment, key.part) == (0, 0) else []
        cuts = [(int(window), index[window, 1]) for window in np.flatnonzero(score >= self._options.threshold)]
        return [(window, encode_jpeg(pixels[row])) for window, row in (*first, *cuts)]


class ShotsAssembler:
    """Writes a shot's line as soon as the next one begins; keeps one thumbnail a shot for the sheet."""

    def __init__(self, table: PartFile, picture: PartFile | None, media: MediaInfo, options: ShotsOptions) -> None:
        self.notes: list[str] = []
        self._table = table
        self._picture = picture
        self._media = media
        self._clock = media.clock
        self._sheet = ShotSheet(media)
        self._shots = 0
        self._shot = Cut(0.0, 0.0, b"")  # the current shot
        self._cuts = CutFinder(options.threshold, options.least_s)
        self._time: float | None = None  # of the last window
        rate = Fraction(*media.frame_rate)
        self._step = float(1 / rate) if rate else 0.0  # the duration of the last frame, as far as it is known

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Take the part's scores, and write the shots that they end."""
        thumbs = dict(zip(arrays["at"].tolist(), _cut_up(arrays["thumbs"], arrays["sizes"]), strict=True))
        if -1 in thumbs:
            self._shot = Cut(0.0, 0.0, thumbs[-1])
        seen = arrays.get("looks")
        for window, (pts, score) in enumerate(zip(meta.pts, arrays["score"].tolist(), strict=True)):
            time = self._clock.seconds(pts)
            if self._time is not None:
                self._step = time - self._time
            self._time = time
            look = None if seen is None else seen[window].copy()
            for cut in self._cuts.add(Frame(time, score, look, thumbs.get(window, b""))):
                self._begin(cut)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: shots describe the picture."""

    def close(self) -> list[Path]:
        """End the last shot, and draw the sheet."""
        for cut in self._cuts.close():
            self._begin(cut)
        if self._time is not None:
            end = self._time + self._step
            if self._media.last is not None and self._clock.seconds(self._media.last) == self._time:
                end = self._media.duration_s or end
            self._end(end)
        if self._picture is not None:
            self._picture.write(encode_png(self._sheet.draw()))
            self.notes += self._sheet.notes
        return [file.commit() for file in (self._table, self._picture) if file is not None]

    def abort(self) -> None:
        """Remove the unfinished files."""
        self._table.discard()
        if self._picture is not None:
            self._picture.discard()

    def _begin(self, cut: Cut) -> None:
        self._end(cut.time)
        self._shot = cut

    def _end(self, time: float) -> None:
        self._shots += 1
        row = {
            "shot": self._shots,
            "start": round(self._shot.time, 6),
            "end": round(time, 6),
            "score": rounded(self._shot.score),
        }
        self._table.write(json_line(row).encode())
        self._sheet.add(self._shot.thumb, self._shot.time, time)


def _cut_up(data: Array, sizes: Array) -> list[bytes]:
    """Return the files that lie in `data` one after the other."""
    ends = np.cumsum(sizes)
    return [data[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)]
