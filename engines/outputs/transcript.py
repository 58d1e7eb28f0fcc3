"""transcript: writes what was said: `<target>.srt`, `.vtt`, `.txt`, `.tsv` and `.json`, those that `files` names.

Times are seconds on the media's clock. srt and vtt have cues of a few short lines (`engines.outputs.cues`). txt has a
line a chunk of speech, tsv a row with begin and end in milliseconds, as openai/whisper writes them. json is
`{"segments": [{"start", "end", "text", "language", "language_probability", "avg_logprob", "no_speech_prob",
"compression_ratio", "words": [{"word", "start", "end", "probability"}]}], "language", "duration"}`; `words` are left
out where they were not aligned, and `language` is that of most of the text. A model that hears them adds `emotion` and
`event` to a segment.

`mp4` and `mkv` are copies of the source with the subtitles as a track (`engines.outputs.subtitled`), `burned` is a film
with the subtitles drawn into its pictures (`engines.outputs.burned`).

Where parts have `voices`, segments have a `speaker`, and are cut where it changes (`engines.outputs.speakers`).
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from engines.clusters import CLUSTERING
from engines.encoding import Encoded, Origin, VideoOptions
from engines.extras import Needs
from engines.outputs.base import BaseFormat
from engines.outputs.burned import BurnedFilm
from engines.outputs.captions import CaptionStyle, Place
from engines.outputs.cues import Cue, CueRules, Spoken, cues_of, words_of
from engines.outputs.jsonl import encoded_rows
from engines.outputs.speakers import Speakers
from engines.outputs.subtitled import FORMATS, SubtitledCopy
from engines.outputs.tables import json_text
from engines.outputs.transcript_files import WRITERS, TranscriptFile
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.speech.voices import HEARD, VOICES
from schemas.errors import OutputError, PipelineError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_NEEDS = ("text", "span", "language", "quality")
_TAGS = ("emotion", "event")  # that some models say of a chunk
_BURNED = "burned"
_FILES = (*WRITERS, *FORMATS, _BURNED)
_SPEAK = "put a stage of the kind transcribe before"


class TranscriptOptions(VideoOptions):
    """`files`: one or several of srt, vtt, txt, tsv, json, mp4, mkv, burned. Cues of subtitles have `lines` of `chars`
    characters, of which a Chinese one counts as two, last at most `cue_s` seconds, and end before a pause of `pause_s`.

    Voices are those of one speaker if their mean similarity is at least `alike`; `speakers`: how many, if known.

    Of a burned film: `size` of the text and `margin` to its `place`, in percent of the picture's shorter side; and the
    options of videos.
    """

    files: tuple[str, ...] = ("srt", "json")
    chars: int = Field(default=42, ge=8, le=500)
    lines: int = Field(default=2, ge=1, le=10)
    cue_s: float = Field(default=7.0, ge=0.5, le=60)
    pause_s: float = Field(default=1.0, ge=0.1, le=60)
    alike: float = Field(default=0.5, ge=-1, le=1)
    speakers: int = Field(default=0, ge=0, le=100)
    size: float = Field(default=5.5, ge=1, le=30)
    margin: float = Field(default=4.0, ge=0, le=45)
    place: Place = "bottom"

    @field_validator("files", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """One name, several with commas, or a list."""
        names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not names or any(name not in _FILES for name in names):
            raise ValueError(f"name one or several of {', '.join(_FILES)}")
        return tuple(dict.fromkeys(names))

    @property
    def rules(self) -> CueRules:
        """How cues are made."""
        return CueRules(self.chars, self.lines, self.cue_s, self.pause_s)

    @property
    def style(self) -> CaptionStyle:
        """How cues are drawn."""
        return CaptionStyle(self.size, self.margin, self.place, self.lines)


class TranscriptFormat(BaseFormat[TranscriptOptions]):
    """A part's result is a line of JSON a chunk that has a text, as one array `rows [bytes] uint8`."""

    options_class = TranscriptOptions

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that the arrays are those of a transcript."""
        if missing := [name for name in _NEEDS if name not in arrays]:
            held = ", ".join(f"`{name}`" for name in arrays)
            raise PipelineError(f"format transcript needs `{missing[0]}`, the part holds {held}", _SPEAK)

    def needs(self, arrays: Mapping[str, Tensor]) -> Needs | None:
        """Return what labels of speakers are computed with, when all the work is done."""
        return CLUSTERING if VOICES in arrays else None

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's lines."""
        encoded = encoded_rows(self._rows(part))
        if VOICES not in part.arrays:
            return encoded
        voices = {name: part.arrays[name] for name in (VOICES, HEARD)}
        made = {name: each.values for name, each in voices.items() if isinstance(each, Ragged)}
        return Encoded({**encoded.arrays, **made}, encoded.facts)

    def assemble(self, target: Path, media: MediaInfo) -> "TranscriptAssembler":
        """Start the files."""
        return TranscriptAssembler(target, media, self._options)

    def _rows(self, part: Part) -> Iterator[dict[str, Any]]:
        texts, words = part.arrays.get("text"), part.arrays.get("words")
        if not isinstance(texts, Ragged):
            raise PipelineError("a part has no transcript", _SPEAK)
        spans, quality = part.array("span").tolist(), part.array("quality").tolist()
        labels = self._labels.get("language", ())
        for number, code in enumerate(part.array("language").tolist()):
            data = texts.row(number).tobytes()
            text = data.decode(errors="replace").strip()
            if not text:
                continue
            log_prob, no_speech, compression, share = (_rounded(value, 4) for value in quality[number])
            row = {
                "start": _rounded(spans[number][0], 3),
                "end": _rounded(spans[number][1], 3),
                "text": text,
                "language": _named(labels, code),
                "language_probability": share,
                "avg_logprob": log_prob,
                "no_speech_prob": no_speech,
                "compression_ratio": compression,
            }
            for name in _TAGS:
                if name in part.arrays:
                    row[name] = _named(self._labels.get(name, ()), int(part.array(name)[number]))
            yield row | ({"words": list(_words(words.row(number), data))} if isinstance(words, Ragged) else {})


def _named(labels: Sequence[str], code: int) -> str:
    return labels[code] if code < len(labels) else ""


def _words(rows: Array, data: bytes) -> Iterator[dict[str, Any]]:
    for start, end, share, first, last in rows.tolist():
        word = data[int(first) : int(last)].decode(errors="replace")
        yield {
            "word": word,
            "start": _rounded(start, 3),
            "end": _rounded(end, 3),
            "probability": _rounded(share, 4),
        }


def _rounded(value: float, digits: int) -> float:
    """Seconds or a share in JSON; a value that is no number is 0."""
    return round(value, digits) if math.isfinite(value) else 0.0


class TranscriptAssembler:
    """Gives each file what it writes of a chunk; the end of a cue is known when the next one begins."""

    def __init__(self, target: Path, media: MediaInfo, options: TranscriptOptions) -> None:
        self.notes: list[str] = []
        self._media = media
        self._rules = options.rules
        self._languages: Counter[str] = Counter()
        self._held: Cue | None = None
        self._speakers: Speakers | None = None
        self._options, self._speaker = options, ""
        self._files: list[TranscriptFile] = []
        self._copies: list[SubtitledCopy] = []
        self._burned = BurnedFilm(target, options, options.style) if _BURNED in options.files else None
        self._cues: list[Cue] = []  # of copies and of the burned film
        self._source: Path | None = None
        try:
            for name in options.files:
                if name in WRITERS:
                    self._files.append(WRITERS[name](target.with_name(f"{target.name}.{name}")))
                elif name in FORMATS:
                    self._copies.append(SubtitledCopy(target, name))
        except BaseException:
            self.abort()
            raise

    def set_origin(self, origin: Origin) -> None:
        """Take the path of the source, which copies are made of."""
        self._source = Path(origin.sources[0]) if origin.sources else None

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's chunks. Raises OutputError."""
        try:
            rows = [json.loads(line) for line in arrays["rows"].tobytes().splitlines()]
            spoken = [_spoken(row) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"a result of transcript has a line of another form: {error}") from error
        if VOICES in arrays and HEARD in arrays:  # which speaker it is depends on all voices of the media
            self._speakers = self._speakers or Speakers(self._options.alike, self._options.speakers)
            self._speakers.add(rows, arrays[VOICES], arrays[HEARD])
            return
        for row, words in zip(rows, spoken, strict=True):
            self._segment(row, words)

    def _segment(self, row: Mapping[str, Any], words: list[Spoken]) -> None:
        """Write a segment and its cues; the first cue of a speaker's turn begins with the name."""
        self._languages[row["language"]] += len(row["text"])
        for file in self._files:
            file.segment(row, json_text(row))
        speaker = str(row.get("speaker", ""))
        named, self._speaker = bool(words) and speaker != self._speaker, speaker
        if named:
            words = [Spoken(f" {speaker}:", words[0].start, words[0].start), *words]
        for cue in cues_of(words, self._rules):
            self._cue(cue._replace(speaker=speaker, named=named))
            named = False

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Leave tracks out: the files cannot hold them."""

    def close(self) -> list[Path]:
        """Finish the files. Raises OutputError."""
        for row in self._speakers.labelled() if self._speakers else ():
            self._segment(row, _spoken(row))
        if self._held is not None:
            self._write(self._held)
        language = self._languages.most_common(1)[0][0] if self._languages else None
        if language is None:
            self.notes.append("no speech was found in it")
        ending = {"language": language, "duration": round(self._media.duration_s, 3)}
        films = self._films(language or "")  # takes minutes, and may be stopped: before any file has its name
        return [file.close(ending) for file in self._files] + films

    @property
    def share(self) -> float:
        """How much of the film with drawn subtitles is written, 0 to 1."""
        return self._burned.share if self._burned is not None else 0.0

    def stop(self) -> None:
        """Stop drawing subtitles: `close` raises OutputError soon."""
        if self._burned is not None:
            self._burned.stop()

    def abort(self) -> None:
        """Remove the unfinished files."""
        for each in (*self._files, *self._copies, *([self._burned] if self._burned is not None else ())):
            each.abort()

    def _films(self, language: str) -> list[Path]:
        """The films with subtitles; none, and a note, where the source is on another machine."""
        if not self._copies and self._burned is None:
            return []
        if self._source is None or not self._source.is_file():
            for copy in self._copies:
                copy.abort()
            self.notes.append("the source is not on this machine: no copy of it has the subtitles")
            return []
        origin_s, films = self._media.origin * Fraction(*self._media.time_base), []
        for copy in self._copies:
            films.append(copy.write(self._source, self._cues, origin_s, language))
            self.notes += copy.notes
        if self._burned is not None:
            films += self._burned.write(self._source, self._cues, origin_s)
            self.notes += self._burned.notes
        return films

    def _cue(self, cue: Cue) -> None:
        if self._held is not None:
            self._write(self._held._replace(end=min(self._held.end, max(self._held.start, cue.start))))
        self._held = cue

    def _write(self, cue: Cue) -> None:
        for file in self._files:
            file.cue(cue)
        if self._copies or self._burned is not None:
            self._cues.append(cue)


def _spoken(row: Mapping[str, Any]) -> list[Spoken]:
    """The words of a chunk, or its text as one."""
    words = [Spoken(str(word["word"]), float(word["start"]), float(word["end"])) for word in row.get("words", ())]
    if words:
        return words
    start, end = float(row["start"]), float(row["end"])
    parts = words_of(str(row["text"]))
    step = (end - start) / max(1, len(parts))
    return [Spoken(part, start + n * step, start + (n + 1) * step) for n, part in enumerate(parts)]
