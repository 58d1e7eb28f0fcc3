"""A film with subtitles drawn into its pictures, made on the machine that has the film.

The film is cut at keyframes, as for a pipeline of video. Several threads decode, draw on and encode a piece each, a
picture at a time; the file gets their packets in order. So the memory does not grow with the film, and the file does
not depend on how many threads there are. Sound, other tracks and times are those of the source.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av

from engines.encoding import Encoded, Pictures, VideoOptions
from engines.machine import cores
from engines.media.colours import FULL
from engines.media.decode import decode_video
from engines.media.head import cover_streams
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.segment_data import SegmentData
from engines.media.source import open_media
from engines.media.split import Splitter
from engines.outputs.captions import Captions, CaptionStyle
from engines.outputs.colour import picture_planes
from engines.outputs.cues import Cue
from engines.outputs.draw import Canvas, ycbcr_paint
from engines.outputs.gop import Geometry, encode_gop, frames_of, geometry_of
from engines.outputs.mux import VideoFile
from engines.outputs.software import Software
from engines.outputs.surfaces import HostDrawing
from engines.part import Part
from engines.pictures import HostPictures
from engines.planned import DecodePlan
from schemas.errors import OutputError, RigflowError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.parts import PartMeta
from schemas.picture import PictureSpec
from schemas.pipeline import DecodeStage
from schemas.segments import Fragment

_PLANES = {"plane": PictureSpec(layout="planes")}
_PLAN = DecodePlan(DecodeStage(kind="decode"), ("video",), Grid(), _PLANES, {}, by_source=True)
_LIMITS = Limits(DEFAULT_LIMITS.pixels, windows=1 << 40, duration_s=float("inf"))  # it is a file of the user
_SEGMENT_S = 10.0  # of a piece: the encoder works best with long runs of pictures
_GOP = 250  # pictures at most
_JOB = JobRef(id="burned", pipeline="burned", revision="0")
_NO_PICTURE = "the source has no pictures: no film has the subtitles drawn on it"


class _Gop(NamedTuple):
    """An encoded run of pictures, with the times of these."""

    meta: PartMeta
    made: Encoded


class _Shown(NamedTuple):
    """One picture of a part, ready to be encoded."""

    meta: PartMeta
    pts: int
    frame: av.VideoFrame
    pictures: Pictures
    geometry: Geometry


class BurnedFilm:
    """One film, `<target>.burned.mp4`, or mov or mkv as its sound needs. `notes`: anything unusual in it."""

    def __init__(self, target: Path, options: VideoOptions, style: CaptionStyle) -> None:
        self.notes: list[str] = []
        self._target = target.with_name(f"{target.name}.burned")
        self._options, self._style = options, style
        self._file: VideoFile | None = None
        self._stopped = False
        self.share = 0.0  # of the film that is written

    def write(self, source: Path, cues: Sequence[Cue], origin_s: Fraction) -> list[Path]:
        """Draw cues, whose second 0 is at `origin_s` of the film; no file if it has no pictures. Raises OutputError."""
        try:
            with open_media(source) as opened:
                if len(cover_streams(opened)) == len(opened.streams.video):
                    self.notes.append(_NO_PICTURE)
                    return []
            with Splitter(source, Grid(), _SEGMENT_S, sound=self._options.sound, limits=_LIMITS) as splitter:
                self._file = VideoFile(self._target, splitter.media)
                aspect = Fraction(*splitter.media.sample_aspect)
                self._fill(splitter.segments(), Captions(cues, self._style, aspect), origin_s)
            self.notes += self._file.notes
            return self._file.close()
        except OutputError:
            raise
        except RigflowError as error:
            raise OutputError(f"cannot draw subtitles on {source}: {error.what}", error.hint) from error

    def stop(self) -> None:
        """Make `write` raise OutputError soon, in whatever thread it runs."""
        self._stopped = True

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._file is not None:
            self._file.abort()

    def _fill(self, segments: Iterator[SegmentData], captions: Captions, origin_s: Fraction) -> None:
        assert self._file is not None
        threads = cores()
        waiting: deque[tuple[SegmentData, Fragment | None, Future[list[_Gop]]]] = deque()
        pool = ThreadPoolExecutor(threads, "burned")
        try:
            for number, piece in enumerate(segments):
                key = Key(job=_JOB, segment=number, final=piece.final)
                waiting.append((piece, _fragment(piece, key), pool.submit(self._burn, piece, key, captions, origin_s)))
                if len(waiting) > threads:
                    self._put(*waiting.popleft())
            while waiting:
                self._put(*waiting.popleft())
        finally:
            self._stopped |= bool(waiting)
            pool.shutdown(cancel_futures=True)

    def _put(self, piece: SegmentData, fragment: Fragment | None, made: "Future[list[_Gop]]") -> None:
        assert self._file is not None
        if fragment is not None and piece.tracks is not None:
            self._file.add_tracks(fragment, piece.tracks.arrays)
        gops = made.result()
        self.share = min(1.0, piece.end_s / max(piece.end_s, piece.media.duration_s, 1e-9))
        for gop in gops:
            self._file.add(gop.meta, gop.made.arrays, gop.made.facts)
            self.notes += [note for note in gop.meta.notes if note not in self.notes]

    def _burn(self, piece: SegmentData, key: Key, captions: Captions, origin_s: Fraction) -> list[_Gop]:
        """Decode, draw on and encode one piece, a picture at a time."""
        convert = HostPictures(_PLANES).convert
        parts = decode_video(piece.segment(key), piece.buffers, _PLAN, convert, limits=_LIMITS, tick=self._tick)
        shown, gops = self._drawn(parts, captions, origin_s), []
        while (first := next(shown, None)) is not None:
            run: list[tuple[PartMeta, int]] = []
            encoder = Software().new_encoder(first.geometry, first.pictures, self._options)
            made = encode_gop(encoder, _frames(chain([first], islice(shown, _GOP - 1)), run), self._tick)
            meta = run[-1][0].model_copy(update={"pts": tuple(pts for _, pts in run)})
            gops.append(_Gop(meta, made))
        return gops

    def _drawn(self, parts: Iterator[Part], captions: Captions, origin_s: Fraction) -> Iterator[_Shown]:
        for part in parts:
            media, pts = part.meta.media, part.meta.pts
            if not pts:
                continue
            planes, colour = picture_planes(part)
            drawing, paint = HostDrawing(planes), ycbcr_paint(colour, planes[0].shape[1])
            for number, at in enumerate(pts):
                second = float(at * media.clock.time_base - origin_s)
                captions.draw(Canvas(drawing.surface(number), paint), second)
            drawn = drawing.finish()
            pictures, geometry = Pictures(drawn, colour, media), geometry_of(drawn, self._options.bits)
            for at, frame in zip(pts, frames_of(drawn, geometry, colour.range == FULL), strict=True):
                yield _Shown(part.meta, at, frame, pictures, geometry)

    def _tick(self) -> None:
        if self._stopped:
            raise OutputError("the film with subtitles was given up", "run the command again")


def _frames(shown: Iterator[_Shown], run: list[tuple[PartMeta, int]]) -> Iterator[av.VideoFrame]:
    """Yield the frames, and note their times in `run`: the encoder asks for them one by one."""
    for each in shown:
        run.append((each.meta, each.pts))
        yield each.frame


def _fragment(piece: SegmentData, key: Key) -> Fragment | None:
    """The message of a piece's other tracks, as `VideoFile` takes it."""
    tracks = piece.tracks
    if tracks is None:
        return None
    return Fragment(key=key, media=piece.media, container=tracks.container, tracks=tracks.tracks, notes=tracks.notes)
