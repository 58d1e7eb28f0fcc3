"""Chinese as ZipVoice's symbols: the syllables of pinyin, each an initial and a final with its tone; English as IPA.

Words are found by jieba, read by pypinyin, numbers by cn2an (the extra `chinese`). Their releases decide how words
sound, so that one release of each is asked for on all machines.
Source: k2-fsa/ZipVoice, zipvoice/tokenizer/tokenizer.py. Its `[...]` and its words of English numbers are not here.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engines.extras import install_extra, pip_install
from schemas.errors import PluginMissing, UsageError

RELEASES = {"pypinyin": "0.55.0", "jieba": "0.42.1", "cn2an": "0.5.24"}  # as in pyproject.toml
MARKS = ("zh0", "ang1")  # symbols of such a model
_SIGNS = str.maketrans(
    "\uff0c\u3002\uff01\uff1f\uff1b\uff1a\u3001\u2018\u201c\u201d\u2019\u22ef", ",.!?;:,'\"\"'\u2026"
)
_DOTS = re.compile(r"\u00b7{3}|\u30fb{3}|\.{3}")
_PIECE = re.compile(r"<[a-z\u00fc]+[1-5]>|.", re.DOTALL)
_CHINESE, _LATIN = re.compile("[\u4e00-\u9fa5]|<.+>"), re.compile("[A-Za-z]")
_SYLLABLE = re.compile(r"[a-z\u00fc\u00ea\u1ec1]+[1-5]")


def check_pinyin() -> None:
    """Raise PluginMissing if the packages are not installed here in the right releases."""
    _reader()


def spelled(text: str, other: Callable[[str], str]) -> list[str]:
    """Return the symbols of a text; `other` spells what is not Chinese. Raises PluginMissing, UsageError."""
    found: list[str] = []
    for piece, chinese in _pieces(_DOTS.sub("\u2026", text.translate(_SIGNS))):
        found += _read(piece) if chinese else list(other(piece))
    return found


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what is in one language, and whether that is Chinese; signs belong to what is before them."""
    made, chinese = "", False
    for piece in _PIECE.findall(text):
        is_chinese = bool(_CHINESE.fullmatch(piece))
        known = is_chinese or bool(_LATIN.fullmatch(piece))
        if known and is_chinese != chinese:
            if any(_CHINESE.search(each) or _LATIN.search(each) for each in made):
                yield made, chinese
                made = ""
            chinese = is_chinese
        made += piece
    if made:
        yield made, chinese


def _read(text: str) -> Iterator[str]:
    """Yield the symbols of Chinese, in which `<le5>` is a syllable as it is spoken."""
    reader = _reader()
    for piece in re.split(r"(<[a-z\u00fc]+[1-5]>)", text):
        for syllable in [piece[1:-1]] if piece.startswith("<") and piece.endswith(">") else reader(piece):
            if not _SYLLABLE.fullmatch(syllable):
                yield from syllable
                continue
            initial, final = _parts()(syllable)
            yield from ([f"{initial}0"] if initial else [])
            yield from ([final] if final else [])


@cache
def _parts() -> Callable[[str], tuple[str, str]]:
    convert: Any = import_module("pypinyin.contrib.tone_convert")

    def parts(syllable: str) -> tuple[str, str]:
        final = convert.to_finals_tone3(syllable, strict=False, neutral_tone_with_five=True)
        return convert.to_initials(syllable, strict=False), final

    return parts


@cache
def _reader() -> Callable[[str], list[str]]:
    """A function that reads Chinese as syllables with their tones, and returns other signs as they are."""
    for name, release in RELEASES.items():
        try:
            found = version(name)
        except PackageNotFoundError as error:
            what = f"to speak Chinese, text becomes pinyin by {name}, which is not installed here"
            raise PluginMissing(what, install_extra("chinese")) from error
        if found != release:
            what = f"pinyin is that of {name} {release}, so that all machines speak alike, and here is {found}"
            raise PluginMissing(what, pip_install(f"{name}=={release}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old code in jieba
        jieba, pypinyin, cn2an = (import_module(name) for name in ("jieba", "pypinyin", "cn2an"))
    words: Any = jieba.Tokenizer()
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True  # without its cache, a file in the folder for temporary files

    def read(text: str) -> list[str]:
        try:
            text = cn2an.transform(text, "an2cn")
        except Exception as error:  # the package raises plain exceptions
            raise UsageError(f"its numbers cannot be read in Chinese: {error}", "write them in words") from error
        style: Any = pypinyin.Style.TONE3
        found = pypinyin.lazy_pinyin(list(words.cut(text)), style=style, tone_sandhi=True, neutral_tone_with_five=True)
        return list(found)

    return read
