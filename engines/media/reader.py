"""Reads the frames of one segment in the order in which they are shown, and counts lost and damaged ones."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.media.bursts import Expected, IrregularBurst, ascending
from engines.media.packets import Coded, Flag
from engines.media.windows import MissingFrame, Span, used_times
from engines.part import Tick
from schemas.grid import Grid
from schemas.segments import Segment

_SKIPPABLE = ("h264", "hevc")  # decoders that can leave out single frames that no other frame refers to


@dataclass(slots=True)
class Counts:
    """Counts of the frames that a segment owns, and notes on anything unusual.

    `frames` are whole. `lost` frames did not come out of the decoder, or came patched over damage. `unseen` are the
    whole ones that no window needs: they were not decoded, or not compared with the expected ones.
    """

    frames: int = 0
    lost: int = 0
    unseen: int = 0
    notes: dict[str, None] = field(default_factory=dict)


class _Run(NamedTuple):
    """Packets from an entry on, and the range of times that they are responsible for."""

    packets: Sequence[Coded]
    since: int
    until: int | None

    def owns(self, pts: int) -> bool:
        """Return whether the run is responsible for `pts`."""
        return self.since <= pts and (self.until is None or pts < self.until)


class FrameReader:
    """Decodes the packets of a segment: `exact` as long as nothing is damaged, `patched` otherwise.

    On a sampled grid, frames that no tick of the grid uses may be left out, if the decoder can skip them. With a
    warm-up, frames before the segment's own come first, from an entry on. `span`: what the segment owns.
    """

    def __init__(self, packets: Sequence[Coded], segment: Segment, grid: Grid, tick: Tick) -> None:
        self._packets = packets
        self._tick = tick
        self._grid = grid
        self._by_rank = segment.by_rank
        clock, start = segment.media.clock, segment.start
        self._since = min(start, packets[0].pts) if grid.warm_up and packets else start  # of the frames that are read
        self._times = sorted(coded.pts for coded in packets if coded.shown and coded.pts >= self._since)
        self.span = Span(clock, start, segment.end, grid.warm_up_pts(clock, start, self._times))
        end = len(self._times) if segment.end is None else bisect_left(self._times, segment.end)
        self._owned = self._times[bisect_left(self._times, start) : end]
        self._undecodable = bisect_left(self._owned, segment.media.origin)  # in front of the media's first keyframe
        self._hidden = {coded.pts for coded in packets if not coded.shown}.difference(self._times)
        self._entries = [coded.pts for coded in packets if coded.flags & Flag.ENTRY and coded.pts >= self._since]
        self._empty: list[_Run] = []  # runs that gave no frame
        self._intact: set[int] = set()  # times of frames that came out whole
        self._skips = segment.codec is not None and segment.codec.decoder in _SKIPPABLE and not self._by_rank
        self._judged: Sequence[int] | None = None  # times of the frames that should be whole

    @property
    def last(self) -> int:
        """Return the pts of the last frame to read, as far as the packets state it."""
        return self._times[-1] if self._times else self.span.start

    def counted(self, until: int) -> int:
        """Return the number of the segment's own frames up to the pts `until` that came out whole."""
        return len(self._intact.intersection(self._owned[: bisect_right(self._owned, until)]))

    @cached_property
    def _due(self) -> list[int] | None:
        """Return the times of the frames that ticks use; None if every frame is needed.

        The ticks are those of the segment's windows, and of all windows in the time that it owns. A frame is then used,
        or not, however the media is cut.
        """
        grid, span, times = self._grid, self.span, self._times[self._undecodable :] or self._times
        if grid.fps is None or not times or not self._skips:
            return None
        windows = span.windows(grid, times[-1])
        earlier = max(0, windows.start - (grid.frames - 1) // grid.stride - 1)
        return used_times(times, grid, span.clock, range(earlier, windows.stop), self._since)

    def count(self, counts: Counts, name: str) -> None:
        """Adds what became of the segment's own frames, now that all of them were read; `name` is the media's."""
        judged = self._judged
        if judged is None:  # nothing was damaged: if no frames were selected, all of them had to come
            judged = self._owned[self._undecodable :] if self._due is None else ()
        gone = sorted(set(judged).difference(self._intact))
        counts.lost = len(gone) + self._undecodable
        counts.frames = len(self._owned) - counts.lost
        counts.unseen = max(0, counts.frames - len(self._intact.intersection(self._owned)))
        if gone:
            counts.notes[f"{name}: {self._gone(gone)}"] = None

    def _gone(self, times: Sequence[int]) -> str:
        """Return the number of frames without a whole picture, and the seconds of the media at which they are shown."""
        first, last = (self.span.clock.seconds(pts) for pts in (times[0], times[-1]))
        if len(times) == 1:
            return f"1 frame is damaged or missing, at {first:.2f} s"
        return f"{len(times)} frames are damaged or missing, between {first:.2f} and {last:.2f} s"

    @cached_property
    def due(self) -> Sequence[int]:
        """Return the times of the frames that must come, if nothing is damaged."""
        if self._due is None:
            return self._times[bisect_left(self._times, self.span.clock.origin) :]
        return sorted({*self._due, *self._entries})  # a segment that begins at an entry would report that it is missing

    def exact(self, decoder: VideoCodecContext) -> Generator[tuple[int, av.VideoFrame]]:
        """Yield `(pts, frame)` in rising time. Raises MissingFrame on damage."""
        for pts, frame in self._strict(decoder, self._packets, self.due):
            self._intact.add(pts)
            yield pts, frame

    def expected(self, wanted: Collection[int]) -> Expected:
        """Return what `exact` expects, for a decoder that looks itself; frames at the times `wanted` are converted.

        Raises IrregularBurst for side data, and for damage that a container reports.
        """
        if any(coded.side or coded.flags & Flag.CORRUPT for coded in self._packets):
            raise IrregularBurst(None)
        return Expected(
            ascending(self.due),
            np.array([pts in wanted for pts in self.due], np.uint8),
            self._due is not None,
            self._since,
            ascending(self._hidden),
            ascending(coded.pts for coded in self._packets if coded.shown) if self._by_rank else None,
            ascending(self._entries),
            ascending(self._owned),
        )

    def came(self, times: Iterable[int]) -> None:
        """Note frames that came out whole."""
        self._intact |= set(times)

    def patched(self, new_decoder: Callable[[], VideoCodecContext]) -> Generator[tuple[int, av.VideoFrame]]:
        """Yield as `exact` does, with the decoder's pictures of damaged frames; each run has its own decoder.

        A run goes from one entry to the next. It gives the frames of a segment that begins and ends with it: none
        depends on other runs. Its first frame replaces those that are missing before it, and no window begins in a run
        without frames. If only some frames are needed, the run counts as whole as long as these are whole.
        """
        self._intact.clear()
        judged: list[int] = []
        for run in self._runs():
            due = None if self._due is None else [pts for pts in self._due if run.owns(pts)]
            if due is not None and (not due or self._is_intact(new_decoder(), run, due)):
                for pts, frame in self._strict(new_decoder(), run.packets, due) if due else ():
                    self._intact.add(pts)
                    yield pts, frame
                continue
            judged += [pts for pts in self._owned[self._undecodable :] if run.owns(pts)]
            yield from self._patched(new_decoder(), run)
        self._judged = judged

    def _strict(
        self, decoder: VideoCodecContext, packets: Sequence[Coded], due: Sequence[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames that are `due`, and maybe others before the last one. Raises MissingFrame on any damage."""
        waiting = iter(due)
        expected = next(waiting, None)
        skips = self._due is not None
        if skips and expected is None:
            return
        done: list[bool] = []
        decoded = self._decoded(decoder, packets, set(due) if skips else None, done)
        for pts, frame in self._rising(self._timed(decoded, packets)):
            late = expected is not None and pts > expected
            if frame.is_corrupt or late or (not skips and pts != expected) or self._is_misplaced(pts, frame.pts):
                raise MissingFrame(pts)
            if pts == expected:
                expected = next(waiting, None)
            if not done:
                yield pts, frame
            if skips and expected is None:
                done.append(True)  # frames in the decoder still come out: one that others refer to may be damaged
        if expected is not None:
            raise MissingFrame(expected)

    def _is_misplaced(self, pts: int, of_packet: int | None) -> bool:
        """Return whether a frame that gets `pts` by rank is of a packet of another run: frames before it are lost.

        Without this check a time by rank would stay wrong until the end of the stream shows how many frames are
        missing.
        """
        if not self._by_rank or of_packet is None:
            return False
        return bisect_right(self._entries, pts) != bisect_right(self._entries, of_packet)

    def _is_intact(self, decoder: VideoCodecContext, run: _Run, due: Sequence[int]) -> bool:
        try:
            for _ in self._strict(decoder, run.packets, due):
                pass
        except MissingFrame:
            return False
        return True

    def _patched(self, decoder: VideoCodecContext, run: _Run) -> Iterator[tuple[int, av.VideoFrame]]:
        since, some = max(run.since, self.span.clock.origin), False
        for pts, frame in self._rising(self._timed(self._decoded(decoder, run.packets, strict=False), run.packets)):
            if not run.owns(pts):
                continue
            if self._grid.fps is not None and not some and pts > since:
                yield since, frame
            if not frame.is_corrupt:
                self._intact.add(pts)
            some = True
            yield pts, frame
        if not some:
            self._empty.append(run)

    def is_empty(self, pts: int) -> bool:
        """Return whether `pts` lies in a run that gave no frame."""
        return bool(self._empty) and any(run.owns(pts) for run in self._empty)

    def _runs(self) -> Iterator[_Run]:
        """Yield the packets from each entry on, with those that lead the next one."""
        packets = self._packets
        entries = [0, *(at for at, coded in enumerate(packets) if at and coded.flags & Flag.ENTRY)]
        for first, after in zip(entries, [*entries[1:], None], strict=True):
            since = packets[first].pts if first else self._since
            if after is None:
                yield _Run(packets[first:], since, None)
                continue
            until = packets[after].pts
            stop = after
            if not self._by_rank:
                stop = 1 + max(at for at in range(first, len(packets)) if packets[at].pts < until)
            yield _Run(packets[first:stop], since, until)

    def _decoded(
        self,
        decoder: VideoCodecContext,
        packets: Sequence[Coded],
        needed: set[int] | None = None,
        done: Sequence[bool] = (),
        strict: bool = True,
    ) -> Iterator[av.VideoFrame]:
        """Yield the decoder's frames, packet by packet until it is `done`. Damage raises MissingFrame if `strict`."""
        looked_at: bool | None = None
        for coded in [*packets, None]:
            time = coded.pts if coded else None
            if done and coded:
                continue
            if strict and coded and coded.flags & Flag.CORRUPT:
                raise MissingFrame(time)  # its container reports that bytes are missing
            if needed is not None and looked_at != (time in needed):
                looked_at = time in needed
                decoder.skip_frame = "DEFAULT" if looked_at else "NONREF"
            try:
                frames = decoder.decode(coded.packet if coded else None)
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                if strict:
                    raise MissingFrame(time) from error
                continue
            self._tick()
            yield from frames

    def _timed(self, frames: Iterator[av.VideoFrame], packets: Sequence[Coded]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield `(pts, frame)`; by rank, frames take the times of the packets in rising order."""
        ranks = iter(sorted(coded.pts for coded in packets if coded.shown)) if self._by_rank else None
        last = self._since - 1
        for frame in frames:
            if ranks is not None:
                given = next(ranks, None)
                if given is None:
                    return  # more frames than packets: no time is left for them
                last = given
            elif frame.pts in self._hidden:
                continue
            else:
                last = last + 1 if frame.pts is None else frame.pts
            yield last, frame

    def _rising(self, frames: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames that are shown in the segment; one that would precede its predecessor comes after it."""
        last: int | None = None
        for given, frame in frames:
            pts = given if last is None or given > last else last + 1
            if pts >= self._since:
                last = pts
                yield pts, frame
