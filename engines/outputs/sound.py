"""sound: writes sound that a model made, `sound` (a ragged array of float32, -1 to 1) at `rate [W]` Hz.

Of media without times it writes a file of each item, `<target>.wav` of a single one and `<target>/<name>.wav` of
several; pieces of one text are one file, so that a long text may be many items. Of media with times it writes one file.
Between rows of a file stands exact silence. A part's result is `samples [M]` int16 (`[M, 2]` of stereo),
`lengths [W]` int64 and `rate [W]` int32, which subscribers can read directly. Where the part says whose consent its
voice has, that is its fact `consent`, and in front of the file's comment.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from engines.encoding import Encoded, Origin
from engines.files import PartFile
from engines.options import Options
from engines.outputs.base import BaseFormat
from engines.outputs.images import NamedFiles, stem_of
from engines.outputs.sound_file import SoundFile
from engines.part import Array, Part, Tick, no_tick
from engines.planned import CONSENT, Tensor
from engines.ragged import Ragged
from engines.texts import text_of_row
from schemas.errors import OutputError, PipelineError
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_FULL = 32767
_MOST_CONSENT = 2000  # characters; results come from other programs, too
_WHOLE = Item(name="", piece_of=0)  # of media with times
_BY_SPEAK = "add a stage that makes sound before encode: speak"


class SoundOptions(Options):
    """`bitrate` in kbit/s is of mp3, opus and m4a; 0: 64, of opus 32. `silence` in seconds is between rows of a file.

    `note` goes into the file's comment, with the pipeline's revision and its models.
    """

    file: Literal["wav", "flac", "mp3", "opus", "m4a"] = "wav"
    bitrate: int = Field(default=0, ge=0, le=320)
    silence: float = Field(default=0.3, ge=0, le=60)
    note: str = Field(default="", max_length=500)


class SoundFormat(BaseFormat[SoundOptions]):
    """16 bits a sample. wav and flac are equal on every processor, the others on processors of one kind."""

    options_class = SoundOptions

    @property
    def each(self) -> tuple[str, ...]:
        """The file of an item."""
        return (self._options.file,)

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there is sound, and its rate."""
        sound, rate = arrays.get("sound"), arrays.get("rate")
        if sound is None or rate is None:
            held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
            raise PipelineError(f"format sound needs `sound` and `rate`, the part holds {held}", _BY_SPEAK)
        if sound.dtype != "float32" or not sound.ragged or sound.shape[2:] not in ((), (1,), (2,)):
            what = f"`sound` is {sound.dtype} {list(sound.shape)}"
            raise PipelineError(what, "format sound takes rows of float32, of one channel or of two")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's samples of 16 bits."""
        sound = part.arrays.get("sound")
        if not isinstance(sound, Ragged):
            raise PipelineError("format sound needs `sound`, rows of different lengths", _BY_SPEAK)
        return Encoded(
            {
                "samples": whole_samples(sound.values),
                "lengths": np.diff(sound.offsets).astype(np.int64),
                "rate": part.array("rate").astype(np.int32),
            },
            _consent_of(part),
        )

    def assemble(self, target: Path, media: MediaInfo) -> "SoundAssembler":
        """Start the files."""
        return SoundAssembler(target, media, self._options)


def _consent_of(part: Part) -> dict[str, Any]:
    given = part.arrays.get(CONSENT)
    told = dict.fromkeys(text_of_row(given, row) for row in range(len(given))) if isinstance(given, Ragged) else ()
    return {CONSENT: "; ".join(told)} if told else {}


def whole_samples(values: Array) -> Array:
    """Return samples of -1 to 1 as int16: times 32,767, rounded half to even, clipped; NaN is 0."""
    scaled = np.rint(np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0) * np.float32(_FULL))
    samples: Array = np.clip(scaled, -_FULL, _FULL).astype(np.int16)
    return samples


class SoundAssembler:
    """Encodes each file as its rows come."""

    def __init__(self, target: Path, media: MediaInfo, options: SoundOptions) -> None:
        self.notes: list[str] = []
        self._target, self._media, self._options = target, media, options
        self._names = NamedFiles(target, options.file)
        self._files: list[PartFile] = []
        self._last: Item | None = None  # the item before, a failed one too
        self._texts = 0  # those of failed items too
        self._sound: SoundFile | None = None
        self._comment = options.note
        self._consent = ""

    def set_origin(self, origin: Origin) -> None:
        """Take what the sound was made by, for the comment of the files."""
        models = ", ".join(f"{name} {identity[:16]}" for name, identity in sorted(origin.models.items()))
        by = f"rigflow, pipeline revision {origin.revision[:16]}" + (f", models {models}" if models else "")
        self._comment = f"{self._options.note}; {by}" if self._options.note else by

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Encode the part's rows."""
        self._consent = str(facts.get(CONSENT, ""))[:_MOST_CONSENT]
        items, rows = _items_of(meta, len(arrays["lengths"])), _rows_of(arrays)
        for item in items:
            if self._last is None or not _one_text(self._last, item):
                self._finish()
                self._texts += 1
            self._last = item
            if not item.error:
                self._of(item).add(*next(rows))

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Leave tracks out: the file is the sound that was made."""

    def close(self) -> list[Path]:
        """Finish the last file, and give all files their names."""
        if not self._files and self._media.timed:
            self._of(_WHOLE)
        self._finish()
        if len(self._files) == 1 and self._texts < 2:
            self._files[0].call(self._target.with_name(f"{self._target.name}.{self._options.file}"))
        paths = [file.commit() for file in self._files]
        self._names.remove_folder()
        return paths

    def abort(self) -> None:
        """Remove the unnamed files."""
        if self._sound is not None:
            self._sound.abandon()
        for file in self._files:
            file.discard()
        self._names.remove_folder()

    def _of(self, item: Item) -> SoundFile:
        """Return the file of an item's text."""
        if self._sound is None:
            file = PartFile.create(self._names.path(stem_of(item)))
            self._files.append(file)
            options = self._options
            comment = "; ".join(filter(None, (self._consent, self._comment)))
            self._sound = SoundFile(file, options.file, options.bitrate, options.silence, comment)
        return self._sound

    def _finish(self) -> None:
        if self._sound is not None:
            self.notes += [note for note in self._sound.finish() if note not in self.notes]
            self._sound = None


def _one_text(item: Item, other: Item) -> bool:
    """Return whether two items are pieces of one text."""
    return item.piece_of is not None and item.piece_of == other.piece_of


def _items_of(meta: PartMeta, rows: int) -> Sequence[Item]:
    """Return the items of a part's rows, and those that failed; rows of media with times are pieces of one."""
    if meta.media.timed:
        return [_WHOLE] * rows
    if (good := sum(not item.error for item in meta.items)) != rows:
        raise OutputError(f"a part of {good} items has {rows} rows of sound", "run the job again")
    return meta.items


def _rows_of(arrays: Mapping[str, Array]) -> Iterator[tuple[Array, int]]:
    """Yield the samples of each row, and their rate."""
    samples, lengths, rates = (arrays[name] for name in ("samples", "lengths", "rate"))
    kinds = samples.dtype == np.int16 and lengths.dtype.kind == "i" and rates.dtype.kind == "i"
    shapes = lengths.ndim == rates.ndim == 1 and samples.shape[1:] in ((), (1,), (2,)) and samples.ndim > 0
    if not (kinds and shapes and np.all(lengths >= 0) and sum(lengths.tolist()) == len(samples)):
        raise OutputError("a result of sound does not have the samples of its rows", "run the job again")
    start = 0
    for length, rate in zip(lengths.tolist(), rates.tolist(), strict=True):
        yield samples[start : start + length], rate
        start += length
