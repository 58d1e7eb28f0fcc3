"""Chinese as pinyin: what is Chinese in a text, and the symbols of its syllables."""

from pathlib import Path

import pytest

from engines.models.zipvoice import read_zipvoice
from engines.speaking import pinyin
from engines.speaking.phonemes import symbols_of
from engines.speaking.pinyin import spelled
from schemas.errors import PluginMissing
from schemas.speech import SpeechSpec
from tests.zipvoices import SYMBOLS, write_zipvoice

READINGS = {"我": "wo3", "是": "shi4", "爱": "ai4", "女": "nü3", "一": "yi1", "儿": "er2"}
PARTS = {"wo3": ("w", "o3"), "shi4": ("sh", "i4"), "ai4": ("", "ai4"), "nü3": ("n", "v3"), "le5": ("l", "e5")}


@pytest.fixture
def _read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of single characters, in place of the packages."""
    monkeypatch.setattr(pinyin, "_reader", lambda: lambda text: [READINGS.get(each, each) for each in text])
    monkeypatch.setattr(pinyin, "_parts", lambda: lambda syllable: PARTS[syllable])


@pytest.mark.usefixtures("_read")
@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("我是", "w0 o3 sh0 i4"),
        ("我爱女。", "w0 o3 ai4 n0 v3 ."),
        ("我是Ada，是", "w0 o3 sh0 i4 (Ada,) sh0 i4"),
        ("Hello, 我!", "(Hello,_) w0 o3 !"),
        ("“我”…...", '" w0 o3 " … …'),
        ("我<le5>是", "w0 o3 l0 e5 sh0 i4"),
        ("12 good", "(12_good)"),
        ("...", "(…)"),
        ("<b>我", "(<b>) w0 o3"),
        ("", ""),
    ],
)
def test_what_is_chinese_is_read_as_syllables(text: str, symbols: str) -> None:
    found = spelled(text, lambda piece: f"({piece.replace(' ', '_')})")
    assert "".join(found) == symbols.replace(" ", "")
    syllables = [each for each in symbols.split() if each[-1].isdigit()]
    assert [each for each in found if len(each) > 1 and each[-1].isdigit()] == syllables


@pytest.mark.usefixtures("_read")
def test_long_chinese_is_cut_between_syllables() -> None:
    numbers = {each: (place,) for place, each in enumerate(("w0", "o3", "sh0", "i4", "ai4"), 1)}
    speech = SpeechSpec(rate=24000, alphabet="pinyin", language="en-us", symbols=numbers, most=8)
    made = symbols_of("我是爱我是爱我是", speech, "en-us")
    assert max(map(len, made)) <= 8
    assert [number for each in made for number in each] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert all(each[0] in (1, 3, 5) and each[-1] in (2, 4, 5) for each in made), "no initial without its final"


def test_a_zipvoice_with_pinyin_wants_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_zipvoice(tmp_path / "zipvoice")
    with (folder / "tokens.txt").open("a") as file:
        file.write(f"zh0\t{len(SYMBOLS)}\nang1\t{len(SYMBOLS) + 1}\n")
    speech = read_zipvoice(folder / "encoder.onnx", folder / "decoder.onnx").speech
    assert (speech.alphabet, speech.language) == ("pinyin", "en-us")
    assert speech.symbols["ang1"] == (len(SYMBOLS) + 1,)
    monkeypatch.setattr(pinyin, "RELEASES", {"no-such-package": "1"})
    pinyin._reader.cache_clear()
    with pytest.raises(PluginMissing, match=r"becomes pinyin by no-such-package, .* install the extra chinese: "):
        symbols_of("张", speech, "en-us")
