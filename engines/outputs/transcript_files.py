"""The files of a transcript: each kind writes segments or cues as they come."""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from engines.files import PartFile
from engines.outputs.cues import Cue
from engines.outputs.tables import json_text


class TranscriptFile:
    """Base of the kinds: a file that has its name when it is complete. A kind overrides what it writes."""

    def __init__(self, path: Path) -> None:
        self._file = PartFile.create(path)
        self._count = 0
        self.write(self.head())

    def head(self) -> str:
        """What the file begins with."""
        return ""

    def segment(self, row: Mapping[str, Any], text: str) -> None:
        """Take a chunk of speech; `text` is its JSON."""

    def cue(self, cue: Cue) -> None:
        """Take a cue."""

    def end(self, ending: Mapping[str, Any]) -> str:
        """What the file ends with; `ending` is what is known of the whole."""
        return ""

    def write(self, text: str) -> None:
        """Append a text. Raises OutputError."""
        if text:
            self._file.write(text.encode())

    def close(self, ending: Mapping[str, Any]) -> Path:
        """Finish the file. Raises OutputError."""
        self.write(self.end(ending))
        return self._file.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.discard()


class Srt(TranscriptFile):
    """SubRip: numbered cues."""

    def cue(self, cue: Cue) -> None:
        """Append the cue; an arrow in its text would be the line of times."""
        self._count += 1
        lines = "\n".join(cue.lines).replace("-->", "->")
        self.write(f"{self._count}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{lines}\n\n")


class Vtt(TranscriptFile):
    """WebVTT."""

    def head(self) -> str:
        """The line that every such file begins with."""
        return "WEBVTT\n\n"

    def cue(self, cue: Cue) -> None:
        """Append the cue, in a voice span of its speaker; `<`, `>` and `&` would be markup."""
        shown = list(cue.lines)
        if cue.named and shown:
            shown[0] = shown[0].removeprefix(f"{cue.speaker}:").strip()
        lines = "\n".join(escape(line, quote=False) for line in shown if line)
        lines = f"<v {escape(cue.speaker, quote=False)}>{lines}" if cue.speaker else lines
        self.write(f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{lines}\n\n")


class Txt(TranscriptFile):
    """Plain text, a line a chunk, or a line a speaker in a chunk."""

    def segment(self, row: Mapping[str, Any], text: str) -> None:
        """Append the text."""
        speaker = f"{row['speaker']}: " if "speaker" in row else ""
        self.write(f"{speaker}{' '.join(str(row['text']).split())}\n")


class Tsv(TranscriptFile):
    """Begin and end in milliseconds, the text, and its speaker if that is known, between tabs."""

    def segment(self, row: Mapping[str, Any], text: str) -> None:
        """Append a row; before the first one the names of the columns."""
        speaker = f"\t{row['speaker']}" if "speaker" in row else ""
        if not self._count:
            self.write(f"start\tend\ttext{speaker and chr(9) + 'speaker'}\n")
        self._count += 1
        start, end = (round(1000 * float(row[side])) for side in ("start", "end"))
        self.write(f"{start}\t{end}\t{' '.join(str(row['text']).split())}{speaker}\n")

    def end(self, ending: Mapping[str, Any]) -> str:
        """The names of the columns, where there is no row."""
        return "" if self._count else "start\tend\ttext\n"


class Json(TranscriptFile):
    """All that is known, as one object."""

    def head(self) -> str:
        """The begin of the list of segments."""
        return '{"segments": ['

    def segment(self, row: Mapping[str, Any], text: str) -> None:
        """Append the JSON of the chunk."""
        self.write(f"{',' if self._count else ''}\n{text}")
        self._count += 1

    def end(self, ending: Mapping[str, Any]) -> str:
        """The end of the list, and what is known of the whole."""
        return f"\n],\n{json_text(ending).strip()[1:]}\n"


WRITERS: Mapping[str, Callable[[Path], TranscriptFile]] = {
    "srt": Srt,
    "vtt": Vtt,
    "txt": Txt,
    "tsv": Tsv,
    "json": Json,
}


def clock(seconds: float, mark: str) -> str:
    """Seconds as `00:00:00,000`, with that mark before the milliseconds."""
    ms = max(0, round(1000 * seconds))
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"
