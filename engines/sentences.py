"""Cuts text into sentences: a function of the text alone, the same wherever it is called.

A blank line ends a sentence, and so does punctuation of the end (`.`, `!`, `?`, `…`, with quotation marks and brackets
behind it) before a space, unless the next word begins small or the full stop belongs to an abbreviation, an initial or
a number with a space behind it; the ends of Chinese and Japanese sentences need no space. A longer piece than `MOST`
characters is cut behind the last of its clauses that fits, else between words, else anywhere. What has no letter and
no digit belongs to the sentence before it; text without any has no sentences.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

MOST = 400  # characters: half a minute of speech; models are trained on less
_LISTED = r"(?:[-*+\u2022>#]+|\d{1,3}[.)])[^\S\r\n]"  # the beginning of a line of a list, a heading or a quotation
_PARAGRAPH = re.compile(
    rf"(?:\r\n?|\n)[^\S\r\n]*(?={_LISTED})|"
    r"(?:\r\n?|\n|\u2028|\f|\v)[^\S\r\n]*(?:(?:\r\n?|\n|\f|\v)[^\S\r\n]*)+|\u2029"
)
_BULLET = re.compile(r"^[-*+\u2022>#]+\s")
_NUMBER = re.compile(r"\d{1,3}\.")  # of a list
_CLOSING = "\"'\u201d\u2019\u00bb\u203a)\\]}\u300d\u300f\uff09*_"
_NEAR = 40  # characters around an end that are looked at
_END = re.compile(rf"(?<![.!?\u2026])[.!?\u2026]++[{_CLOSING}]*+(?=\s)|[\u3002\uff01\uff1f\uff61]+[{_CLOSING}]*")
_MARKS = ";:,\u2014\u2013.!?"
_CLAUSE = re.compile(rf"(?<![{_MARKS}])[{_MARKS}]++[{_CLOSING}]*+\s|[\u3001\uff0c\uff1b\uff1a]")
_WORD_BEFORE = re.compile(r"([^\W\d_]+(?:\.[^\W\d_]+)*)\.$")
_WORDS = (
    "adm al approx apt art assn ave bd bldg blvd bros ca capt cf cmdr co col corp cpl dept dr ed est etc ex fig ft "
    "gen gov hon inc jr lt ltd maj messrs mlle mme mr mrs ms mt nr op pp pres prof rep rev sen sgt sr st str vol vs "
    "bzw bspw evtl ggf inkl sog usw vgl tel no nos"
)
_ABBREVIATIONS = frozenset(_WORDS.split())
_NUMBERED = frozenset(("no", "nos", "fig", "art", "vol", "op", "pp", "ca", "ex", "ed", "approx", "tel", "etc"))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in order, without the space around and with single blanks inside."""
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        for sentence in _in_paragraph(_BULLET.sub("", " ".join(paragraph.split()), count=1)):
            for piece in _shortened(sentence):
                if any(map(str.isalnum, piece)):
                    found.append(piece)
                elif found and len(found[-1]) + len(piece) < MOST:
                    found[-1] += f" {piece}"
    return found


def _in_paragraph(text: str) -> Iterator[str]:
    ends = [0, *(end.end() for end in _END.finditer(text) if _is_end(text, end)), len(text)]
    for start, stop in pairwise(ends):
        if piece := text[start:stop].strip():
            yield piece


def _is_end(text: str, mark: re.Match[str]) -> bool:
    """Return whether a sentence ends at punctuation."""
    behind = text[mark.end() : mark.end() + _NEAR].lstrip()
    first = behind.lstrip(f"{_CLOSING}\u201c\u2018\u00ab\u300c([{{-\u2014")[:1]
    if first.islower() and (mark[0][0] in ".\u2026" or mark[0][-1] in _CLOSING):
        return False
    if mark[0] != "." or not behind:
        return True
    lead = text[max(0, mark.start() - _NEAR) : mark.start() + 1]
    before = _WORD_BEFORE.search(lead)
    if before is None:
        return _NUMBER.fullmatch(lead) is None
    word = before[1]
    if len(word) == 1:  # an initial, as in J. R. R. Tolkien; "I." and a capital at the end of a sentence are rarer
        return not word.isupper() or word == "I"
    known = word.lower() in _ABBREVIATIONS or "." in word
    return not known or (word.lower() in _NUMBERED and not first.isdigit())


def _shortened(sentence: str) -> Iterator[str]:
    """Yield pieces of at most `MOST` characters."""
    start = 0
    while len(sentence) - start > MOST:
        head = sentence[start : start + MOST + 1]
        ends = [end.end() for end in _CLAUSE.finditer(head) if MOST // 4 < end.end() <= MOST]
        stop = ends[-1] if ends else head.rfind(" ", 1)
        stop = MOST if stop < 1 else stop
        yield head[:stop].strip()
        start += stop
    if rest := sentence[start:].strip():
        yield rest
