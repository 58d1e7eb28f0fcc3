"""Makes any text safe for a terminal or a log, removes passwords from URLs, and proposes what was meant by a name."""

import re
import unicodedata
from collections.abc import Collection
from math import floor, log10
from shlex import quote

LEAST_ALIKE = 0.6  # of 1; difflib's own
_BEGINNING = 3  # letters that are enough for the beginning of a name
_JOINERS = "\u200c\u200d"  # parts of words and of emoji
_USERINFO = re.compile(
    r"(?<=://)[^\s,]*@|(?<![^\s,])[^\s,:/@]+:(?!//)[^\s,]+@(?=\S)"
)  # nats-py takes URLs without scheme too


def without_path(path: object, text: str) -> str:
    """What an error says of a file, for a line that begins with the file's name: its path is left out, or is `it`."""
    for begin, instead in ((f"{path}: ", ""), (f"{path} ", "it ")):
        if text.startswith(begin):
            return instead + text.removeprefix(begin)
    return text


def printable(text: str, keep: str = "") -> str:
    r"""`text` with unprintable characters escaped: ESC is `\x1b`, a byte that is no UTF-8 is `\xff`.

    Spaces of all kinds stay, line ends only when they are in `keep`. So a file's name cannot move a terminal's cursor,
    and cannot look like two lines of a log.
    """
    if text.isprintable():
        return text
    return "".join(each if each in keep or _is_readable(each) else _escaped(each) for each in text)


def shortened(text: str, most: int, end: int = 40) -> str:
    """Return `text` with at most `most` characters: the middle is left out, and the last `end` stay."""
    return text if len(text) <= most else f"{text[: most - end - 1]}\u2026{text[-end:]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s for the plural: `1 frame`, `2,000 frames`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rate(per_s: float) -> str:
    """Return a number of things a second: one decimal below 10, and more where slow work would be `0.0`."""
    if per_s <= 0 or per_s >= 9.95:
        return f"{per_s:,.0f}"
    decimals = max(1, -floor(log10(per_s)))
    return f"{per_s:.{decimals}f}"


def size(nbytes: float) -> str:
    """Return a number of bytes with three digits and a decimal unit: `93 B`, `1.07 kB`, `49.7 MB`."""
    if nbytes < 999.5:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}"
    return f"{nbytes / 1000:.3g} TB"


def without_passwords(text: str) -> str:
    """Return `text` without user and password in its URLs: `nats://me:secret@host` becomes `nats://host`."""
    return _USERINFO.sub("", text)


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that is most like `name`, upper and lower case alike; empty where none is like it.

    One that begins so is more like it than all others.
    """
    from difflib import get_close_matches  # here: few commands need it

    plain = {each.lower(): each for each in sorted(known)}
    begins = [each for each in plain if len(name) >= _BEGINNING and each.startswith(name.lower())]
    found = get_close_matches(name.lower(), begins or plain, 1, LEAST_ALIKE) or begins
    return plain[found[0]] if found else ""


def did_you_mean(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Return a hint: the `nearest` name, if there is one, and then `otherwise`."""
    near = nearest(name, known)
    return f"did you mean {near}? {otherwise}".rstrip() if near else otherwise


def shell_word(text: object) -> str:
    """Return a path or a name as one word of a shell's command, also one that begins with a dash."""
    word = str(text)
    return quote(f"./{word}" if word.startswith("-") else word)


def is_text(name: str) -> bool:
    """Return whether a name from the file system is UTF-8: messages and results require that."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_readable(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's representation of a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
