"""Parts: the messages between stages, and the headers of a part's result."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field

from schemas.arrays import Arrays, check_arrays
from schemas.base import Message
from schemas.cards import Marks
from schemas.errors import MessageError
from schemas.fields import Count, Duration, Label, Ticks, clean_name
from schemas.jobs import Key
from schemas.media import Items, MediaInfo
from schemas.subjects import HEADER_COMPUTED, HEADER_FAILED, HEADER_NOTES, HEADER_PART, HEADER_UNSEEN
from schemas.wire import Buffer

_PART_HEADER = re.compile(r"\d{1,10} \d{1,10} \d{1,10} [01] [01] \d{1,16} \d{1,16}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")


class PartMeta(BaseModel):
    """The meta data of a part beside its arrays, from decode to result.

    `pts` has one entry a window (its first tick, in the media's clock), or one an item where the media has no times.
    The first `warm_up` windows are the segment's warm-up: dropped once the models with a state have seen them.
    `frames` and `lost` count the frames that this part owns and those lost to damage; `unseen` are the `frames` that no
    window uses, which count as whole without decoding; `held` counts the tiles that a model did not compute because
    they equal those of the frame before; `notes` describe anything unusual; `not_finite` counts, for each output, the
    windows with values that are NaN or infinite. `computed_s` are the seconds that workers' devices computed for it:
    its share of a step by its rows. `tokens` are those that language models read and wrote for it. `cards` computed it;
    each is there with the time at which its last canary began, `CARD@MILLISECONDS`.
    """

    model_config = ConfigDict(frozen=True)
    key: Key
    media: MediaInfo
    pts: Annotated[tuple[Ticks, ...], FailFast()] = ()
    items: Items = ()
    warm_up: Count = 0
    frames: Count = 0
    lost: Count = 0
    unseen: Count = 0
    held: Count = 0
    notes: Annotated[tuple[str, ...], FailFast()] = ()
    not_finite: Annotated[dict[Label, Count], Field(max_length=1024)] = {}
    computed_s: Duration = 0.0
    tokens: Count = 0
    cards: Marks = ()

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds from its first window to the start of the window after its last; (0, 0) without times."""
        if not self.media.timed or not self.pts:
            return 0.0, 0.0
        clock, steps = self.media.clock, len(self.pts) - 1
        start_s, last_s = clock.seconds(self.pts[0]), clock.seconds(self.pts[-1])
        frames, over_s = self.media.frame_rate[0], float(self.media.frame_rate[1])
        step_s = (last_s - start_s) / steps if steps else (over_s / frames if frames else 0.0)
        return start_s, last_s + step_s


class PartMessage(Message):
    """A part between two stages in different processes: named arrays."""

    type: Literal["part"] = "part"
    meta: PartMeta
    arrays: Arrays

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that each array fits its buffer. Raises MessageError."""
        self.meta.key.check()
        if self.meta.warm_up > len(self.meta.pts):
            raise MessageError(f"a part of {len(self.meta.pts)} windows has a warm-up of {self.meta.warm_up}")
        check_arrays(self.arrays, buffers)

    @property
    def key(self) -> Key:
        """Its place in the job."""
        return self.meta.key

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it covers; (0, 0) without times."""
        return self.meta.span_s


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What the headers of a part's result say; progress is counted from them, without reading bodies.

    `failed` counts the items of it that have no result, `notes` its notes. `frames`, `lost`, `unseen` and `computed_s`
    are as in `PartMeta`.
    """

    generation: int
    segment: int
    part: int
    last: bool
    final: bool
    frames: int
    lost: int
    unseen: int = 0
    failed: int = 0
    notes: int = 0
    computed_s: float = 0.0

    @classmethod
    def of(cls, meta: PartMeta) -> Self:
        """Return what the headers of a part say."""
        key, failed = meta.key, sum(bool(item.error) for item in meta.items)
        place = (key.job.generation, key.segment, key.part, key.last, key.final)
        return cls(*place, meta.frames, meta.lost, meta.unseen, failed, len(meta.notes), meta.computed_s)

    def headers(self) -> dict[str, str]:
        """The headers of the message; earlier versions of rigflow read the first one as it is, and no others."""
        counts = {HEADER_UNSEEN: self.unseen, HEADER_FAILED: self.failed, HEADER_NOTES: self.notes}
        given = {name: str(number) for name, number in counts.items() if number}
        return {HEADER_PART: self.header(), HEADER_COMPUTED: f"{self.computed_s:.6f}", **given}

    def header(self) -> str:
        """Seven numbers in the order of the first fields."""
        place = f"{self.generation} {self.segment} {self.part} {self.last:d} {self.final:d}"
        return f"{place} {self.frames} {self.lost}"

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Self:
        """Parse the headers of a message; of the optional ones, what is no number counts as 0. Raises MessageError."""
        header = headers.get(HEADER_PART, "")
        if not _PART_HEADER.fullmatch(header):
            raise MessageError(f"the header of a part is not seven numbers: {clean_name(header)}")
        number, segment, part, last, final, frames, lost = map(int, header.split())
        if max(number, segment, part) >= 1 << 31 or max(frames, lost) >= 1 << 53:
            raise MessageError(f"the header of a part has a number that is too large: {header}")
        unseen, failed, notes = (_count(headers.get(name, "")) for name in (HEADER_UNSEEN, HEADER_FAILED, HEADER_NOTES))
        place = (number, segment, part, bool(last), bool(final))
        return cls(*place, frames, lost, unseen, failed, notes, _seconds(headers.get(HEADER_COMPUTED, "")))


def _count(header: str) -> int:
    return int(header) if _COUNT.fullmatch(header) else 0


def _seconds(header: str) -> float:
    return float(header) if _SECONDS.fullmatch(header) else 0.0
